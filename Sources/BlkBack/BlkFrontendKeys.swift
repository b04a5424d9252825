import BlkIf

/// What a frontend publishes: the gate for these keys.
///
/// Not read in a transaction: whoever writes them could make that conflict for as long as it likes, and each value is
/// judged by itself.
struct BlkFrontendKeys {
  /// One ring of its own.
  struct Queue {
    let ringReferences: [GrantReference]
    let eventChannel: EventChannelPort
  }

  let hasProtocolKey: Bool
  let layout: BlkProtocol
  let queues: [Queue]
  let hasPersistentGrants: Bool
  /// `feature-large-sector-size`, which is deprecated.
  let hasLargeSectorSize: Bool

  /// - Parameter options: what was offered.
  init(from frontend: StoreDirectory, offered options: BlkBackOptions) throws(DeviceError) {
    hasProtocolKey = try frontend.optionalString("protocol") != nil
    layout = try BlkProtocol(from: frontend)
    hasPersistentGrants = try frontend.flag("feature-persistent")
    hasLargeSectorSize = try frontend.flag("feature-large-sector-size")
    let pageCount = try Self.ringPageCount(frontend, options)
    let queueCount = try frontend.optionalNumber("multi-queue-num-queues", as: Int.self) ?? 1
    guard queueCount >= 1, queueCount <= options.maxQueueCount else {
      throw .malformedKey(
        path: frontend.path(of: "multi-queue-num-queues"), value: "\(queueCount)",
        expected: "a number from 1 to \(options.maxQueueCount)")
    }
    var queues: [Queue] = []
    for number in 0..<queueCount {
      let directory = queueCount == 1 ? frontend : frontend.at(frontend.path(of: "queue-\(number)"))
      queues.append(
        Queue(
          ringReferences: try Self.ringReferences(directory, pageCount),
          eventChannel: EventChannelPort(rawValue: try directory.number("event-channel"))))
    }
    self.queues = queues
  }

  /// `ring-page-order`, or the deprecated `num-ring-pages`; nil for a frontend that knows neither.
  private static func ringPageCount(_ frontend: StoreDirectory, _ options: BlkBackOptions) throws(DeviceError) -> Int? {
    if let order = try frontend.optionalNumber("ring-page-order", as: Int.self) {
      guard order >= 0, order <= options.maxRingPageOrder else {
        throw .malformedKey(
          path: frontend.path(of: "ring-page-order"), value: "\(order)",
          expected: "a number from 0 to \(options.maxRingPageOrder)")
      }
      return 1 << order
    }
    guard let count = try frontend.optionalNumber("num-ring-pages", as: Int.self) else { return nil }
    guard count >= 1, count <= 1 << options.maxRingPageOrder, count.nonzeroBitCount == 1 else {
      throw .malformedKey(
        path: frontend.path(of: "num-ring-pages"), value: "\(count)",
        expected: "a power of two up to \(1 << options.maxRingPageOrder)")
    }
    return count
  }

  /// `ring-ref` of a ring of one page, which may also be `ring-ref0`; `ring-ref0` and so on of one with more.
  private static func ringReferences(
    _ directory: StoreDirectory, _ pageCount: Int?
  ) throws(DeviceError) -> [GrantReference] {
    var references: [GrantReference] = []
    for page in 0..<(pageCount ?? 0) {
      guard pageCount == 1, try directory.optionalString("ring-ref0") == nil else {
        references.append(GrantReference(rawValue: try directory.number("ring-ref\(page)")))
        continue
      }
    }
    return references.isEmpty ? [GrantReference(rawValue: try directory.number("ring-ref"))] : references
  }

  /// Adds what the frontend asked for and got.
  func report(in negotiation: inout Negotiation, offered options: BlkBackOptions) {
    negotiation.add(
      "protocol", frontend: hasProtocolKey ? layout.rawValue : "native",
      backend: BlkProtocol.allCases.map(\.rawValue).joined(separator: ", "), agreed: layout.rawValue)
    let asked = { (asked: Int, offered: Int) in asked < offered ? "the frontend asks for no more" : "" }
    let pageCount = queues[0].ringReferences.count
    negotiation.add(
      "ring pages", frontend: "\(pageCount)", backend: "\(1 << options.maxRingPageOrder)", agreed: "\(pageCount)",
      reason: asked(pageCount, 1 << options.maxRingPageOrder))
    negotiation.add(
      "queues", frontend: "\(queues.count)", backend: "\(options.maxQueueCount)", agreed: "\(queues.count)",
      reason: asked(queues.count, options.maxQueueCount))
    negotiation.add("feature-persistent", frontend: hasPersistentGrants, backend: options.offersPersistentGrants)
    if hasLargeSectorSize {
      negotiation.add(
        "feature-large-sector-size", frontend: "yes", backend: "no", agreed: "off",
        reason: "it is deprecated, and means another thing to each who has it: give sectorUnits if the disk needs it")
    }
  }
}
