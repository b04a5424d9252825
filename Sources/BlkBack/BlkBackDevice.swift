import BlkIf
import SystemPackage
import XenRing

/// One disk's control plane: its keys, its rings' mappings, its queues' start and stop (io/blkif.h).
final class BlkBackDevice: Backend {
  private let store: any BlockStore
  private let options: BlkBackOptions
  /// What rings may be made for: the options, or what a predecessor had offered when it was killed.
  private var accepted: BlkBackOptions
  private let recordHook: RecordHook?
  private let whenClosed: (XenbusDevice, BlkBackStatistics) -> Void
  private let remainders: BlkBackRemainders
  private(set) var negotiation = Negotiation()
  private var queues: [BlkBackQueue] = []
  private var failure: FirstFault<String>?
  /// What the guest has been told, and what the queues go by.
  private var geometry = BlockGeometry(sectorCount: 0)
  private var size: DiskSize?
  private var record: InFlightRecord?

  init(
    store: any BlockStore, options: BlkBackOptions, recordHook: RecordHook?, remainders: BlkBackRemainders,
    whenClosed: @escaping (XenbusDevice, BlkBackStatistics) -> Void
  ) {
    self.remainders = remainders
    self.store = store
    self.options = options
    accepted = options
    self.recordHook = recordHook
    self.whenClosed = whenClosed
  }

  func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    if try device.isOffered() {
      accept(offerOf: device.own)
      if accepted != options {
        let (queues, pages) = (accepted.maxQueueCount, 1 << accepted.maxRingPageOrder)
        device.log.notice(
          "\(device.own.path): up to \(queues) queues of \(pages) pages, as was offered before our start")
      }
    }
    // What has been used of a former offer stays offered, for whoever comes after us.
    let offered = try device.hasPublishedRings() ? accepted : options
    return [
      StoreEntry("feature-flush-cache", options.offersFlush), StoreEntry("feature-barrier", true),
      StoreEntry("feature-persistent", options.offersPersistentGrants),
      options.maxIndirectSegmentCount > 0
        ? StoreEntry("feature-max-indirect-segments", options.maxIndirectSegmentCount)
        : StoreEntry(absent: "feature-max-indirect-segments"),
      StoreEntry("max-ring-page-order", offered.maxRingPageOrder),
      StoreEntry("max-ring-pages", 1 << offered.maxRingPageOrder),
      StoreEntry("multi-queue-max-queues", offered.maxQueueCount),
    ]
  }

  /// The frontend decides on its rings by the offer that it finds, and Linux's does so once only. All else it decides when we
  /// are connected.
  private func accept(offerOf own: StoreDirectory) {
    for (key, most, member) in [
      ("max-ring-page-order", 4, \.maxRingPageOrder), ("multi-queue-max-queues", 64, \.maxQueueCount),
    ] as [(String, Int, WritableKeyPath<BlkBackOptions, Int>)] {
      // One that makes no sense is nobody's offer.
      guard let number = try? own.optionalNumber(key, as: Int.self) else { continue }
      accepted[keyPath: member] = max(accepted[keyPath: member], min(number, most))
    }
  }

  func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    geometry = try geometry(device, offersDiscard: options.offersDiscard)
    try attach(device, accepted, from: nil)
    return geometry.entries(in: options.sectorUnits) + [unitsEntry(options.sectorUnits)]
  }

  /// Of our own, for whoever resumes: what a request's numbers mean, where that is not what the header says.
  private func unitsEntry(_ units: SectorUnits) -> StoreEntry {
    guard geometry.sectorByteCount > BlkIf.sectorByteCount, units != .standard else {
      return StoreEntry(absent: "sector-units")
    }
    return StoreEntry(
      "sector-units", [units.sectors, units.sectorNumber, units.firstSector].map { "\($0)" }.joined(separator: ","))
  }

  /// What is left in our own directory for a successor: the name of the record of what is in flight.
  var resumePoint: String? { record.map { "record \($0.name)" } }

  /// Goes by what was agreed on, as our own keys have it, and not by what would be offered now.
  ///
  /// - Parameter position: the indices at which the rings go on, or the name of a record.
  func resume(_ device: XenbusDevice, from position: String) throws(DeviceError) {
    let agreed = try agreedOptions(device)
    geometry = try geometry(device, offersDiscard: agreed.offersDiscard)
    for entry in geometry.entries(in: agreed.sectorUnits) + [unitsEntry(agreed.sectorUnits)] {
      let known = try device.own.optionalString(entry.key)
      guard known == entry.value else {
        throw .resource(
          "its guest goes by \(entry.key) = \(known ?? "nothing") and would be served with \(entry.value ?? "nothing"): "
            + "serve it with what it was connected with, or close it")
      }
    }
    do throws(DeviceError) { try attach(device, agreed, from: position) } catch {
      letGo()
      throw error
    }
    for queue in queues { queue.notify() }
  }

  /// The options with what our own keys say in the place of what they offer.
  private func agreedOptions(_ device: XenbusDevice) throws(DeviceError) -> BlkBackOptions {
    var agreed = options
    agreed.offersFlush = try device.own.flag("feature-flush-cache")
    agreed.offersDiscard = try device.own.flag("feature-discard")
    agreed.offersPersistentGrants = try device.own.flag("feature-persistent")
    agreed.maxIndirectSegmentCount =
      try device.own.optionalNumber("feature-max-indirect-segments", as: Int.self) ?? 0
    agreed.maxRingPageOrder = try device.own.optionalNumber("max-ring-page-order", as: Int.self) ?? 0
    agreed.maxQueueCount = try device.own.optionalNumber("multi-queue-max-queues", as: Int.self) ?? 1
    guard agreed.areValid else {
      throw .resource("its keys (feature-max-indirect-segments and the like) offer what this program does not know")
    }
    return agreed
  }

  /// Maps the rings and makes the queues. After a failure nothing of it is left mapped.
  ///
  /// - Parameter position: nil for fresh rings.
  private func attach(
    _ device: XenbusDevice, _ options: BlkBackOptions, from position: String?
  ) throws(DeviceError) {
    let keys = try BlkFrontendKeys(from: device.other, offered: options)
    let isPersistent = keys.hasPersistentGrants && options.offersPersistentGrants
    report(keys, options)
    let failure = FirstFault<String>(attention: device.attention)
    let size = DiskSize(sectorCount: geometry.sectorCount)
    let connection = BlkBackConnection(
      rules: BlkRules(
        for: geometry, maxIndirectSegmentCount: options.maxIndirectSegmentCount, units: options.sectorUnits),
      size: size, frontend: device.otherDomain, grants: device.platform.grants, clock: device.clock, failure: failure,
      persistentPageCount: isPersistent ? options.persistentPageCount : 0, bufferPageCount: options.bufferPageCount)
    let start = try start(device, keys, from: position)
    var queues: [BlkBackQueue] = []
    for (number, queue) in keys.queues.enumerated() {
      queues.append(try makeQueue(device, number, queue, keys.layout, connection, start))
    }
    (self.failure, self.size, self.queues) = (failure, size, queues)
  }

  /// Where rings go on.
  private enum Start {
    case fresh
    case at([RingIndex])
    case recorded
  }

  /// Opens or makes the record, if there is to be one.
  private func start(
    _ device: XenbusDevice, _ keys: BlkFrontendKeys, from position: String?
  ) throws(DeviceError) -> Start {
    let entryCount = BlkBackRing.entryCount(pageCount: keys.queues[0].ringReferences.count, as: keys.layout)
    let path = options.recordDirectory?.appending(
      String(device.own.path.drop { $0 == "/" }.map { $0 == "/" ? "_" : $0 }))
    guard let position, position.hasPrefix("record ") else {
      record = try path.map { (path) throws(DeviceError) in
        try InFlightRecord(at: path, queueCount: keys.queues.count, entryCount: entryCount, hook: recordHook)
      }
      guard let position else { return .fresh }
      let indices = position.split(separator: " ").map { UInt32($0) }
      guard indices.count == keys.queues.count, !indices.contains(nil) else {
        throw .resource("it was left connected by another program, with the word \(position.quoted)")
      }
      return .at(indices.map { RingIndex(rawValue: $0!) })
    }
    guard let path else {
      throw .resource(
        "what was in flight is in a record, and no directory of records is given: give the one it was begun in")
    }
    record = try InFlightRecord(
      at: path, named: String(position.dropFirst("record ".count)), queueCount: keys.queues.count,
      entryCount: entryCount, hook: recordHook)
    return .recorded
  }

  private func makeQueue(
    _ device: XenbusDevice, _ number: Int, _ queue: BlkFrontendKeys.Queue, _ layout: BlkProtocol,
    _ connection: BlkBackConnection, _ start: Start
  ) throws(DeviceError) -> BlkBackQueue {
    let region = try device.map(queue.ringReferences)
    let part = record?.queue(
      number, entryCount: BlkBackRing.entryCount(pageCount: queue.ringReferences.count, as: layout))
    var replays: [(slot: Int, request: BlkIfRequest)] = []
    let ring: BlkBackRing
    switch start {
    case .fresh:
      ring = BlkBackRing(attaching: region, as: layout, at: .zero)
      part?.consumed = .zero
    case .at(let indices):
      ring = BlkBackRing(attaching: region, as: layout, at: indices[number])
      part?.consumed = indices[number]
    case .recorded:
      do throws(RingViolation) {
        ring = try BlkBackRing(takingUp: region, as: layout, requestsConsumed: part!.consumed)
      } catch { throw .protocolViolation("\(error)") }
      replays = try part!.unanswered(produced: ring.responseIndex)
      if !replays.isEmpty {
        device.log.notice("\(device.own.path): \(replays.count) requests had no answer and are done again")
      }
    }
    let channel = try device.bindEventChannel(to: queue.eventChannel)
    do throws(ResourceError) {
      return BlkBackQueue(
        try BlkBackWork(
          ring: ring, channel: channel, store: try store.makeQueue(), connection: connection, record: part,
          replays: replays))
    } catch { throw .resource("\(error)") }
  }

  /// What was agreed on.
  private func report(_ keys: BlkFrontendKeys, _ options: BlkBackOptions) {
    negotiation = Negotiation()
    keys.report(in: &negotiation, offered: options)
    // A frontend uses what it likes of these and says nothing.
    for (feature, isOffered, reason) in [
      ("feature-flush-cache", options.offersFlush, "the backend does not offer it"), ("feature-barrier", true, ""),
      ("feature-discard", geometry.discard != nil, objectionToDiscards(options) ?? ""),
      (
        "discard-secure", geometry.discard?.isSecure == true,
        objectionToDiscards(options) ?? "the store cannot discard securely"
      ),
    ] {
      negotiation.add(
        feature, frontend: "not said", backend: isOffered ? "yes" : "no", agreed: isOffered ? "on" : "off",
        reason: isOffered ? "" : reason)
    }
    let segments = options.maxIndirectSegmentCount
    negotiation.add(
      "feature-max-indirect-segments", frontend: "not said", backend: "\(segments)",
      agreed: segments > 0 ? "\(segments)" : "off", reason: segments > 0 ? "" : "the backend does not offer it")
  }

  /// Why discards are off; nil when they are on.
  private func objectionToDiscards(_ options: BlkBackOptions) -> String? {
    guard geometry.discard == nil else { return nil }
    if geometry.isReadOnly { return "the disk is read-only" }
    if store.geometry.discard == nil { return "the store cannot discard" }
    return options.offersDiscard ? "the toolstack forbids it (discard-enable)" : "the backend does not offer it"
  }

  /// The store's geometry as the toolstack restricts it. Only our own directory is asked: the other one is the guest's.
  private func geometry(_ device: XenbusDevice, offersDiscard: Bool) throws(DeviceError) -> BlockGeometry {
    var geometry = store.geometry
    if try device.isReadOnly() { geometry.isReadOnly = true }
    if try device.own.flag("removable") { geometry.isRemovable = true }
    if try device.own.optionalString("device-type") == "cdrom" { geometry.isCDROM = true }
    let isEnabled = try device.own.optionalNumber("discard-enable", as: UInt32.self) ?? 1 != 0
    if geometry.isReadOnly || !isEnabled || !offersDiscard { geometry.discard = nil }
    return geometry
  }

  func start(_ device: XenbusDevice) throws(DeviceError) {
    for (number, queue) in queues.enumerated() {
      let suffix = queues.count > 1 ? "-\(number)" : ""
      try device.start(queue, name: "\(device.type)-\(device.otherDomain.rawValue)\(suffix)") {
        .protocolViolation(queue.violation.map { "\($0)" } ?? "the ring stopped")
      }
    }
  }

  /// Some request has failed, and the guest has been told: whoever looks after the host should know, too. Or the store's size
  /// has changed, which the guest is told by a state that is written again (B10: as Linux's backend does it).
  func attend(_ device: XenbusDevice) throws(DeviceError) {
    if let text = failure?.take() { device.warn(.resource(text)) }
    guard let size else { return }
    let sectorCount = store.geometry.sectorCount
    guard sectorCount != geometry.sectorCount else { return }
    device.log.notice(
      "\(device.own.path): the disk has \(sectorCount) sectors from now on, and had \(geometry.sectorCount)")
    // First: whoever hears of more sectors may ask for them.
    size.sectorCount = sectorCount
    geometry.sectorCount = sectorCount
    let told = geometry.entries(in: options.sectorUnits).filter { $0.key == "sectors" }
    try device.own.transaction { (own) throws(DeviceError) in
      // Not over what the toolstack has written meanwhile, who withdraws the device or has made it anew.
      guard XenbusState(key: try own.optionalString("state")) == .connected else { return }
      try own.write(told + [StoreEntry("state", XenbusState.connected.rawValue)])
    }
  }

  func detach(_ device: XenbusDevice) throws(DeviceError) -> String {
    guard !queues.isEmpty else { throw .resource("it is not connected") }
    for queue in queues { device.stop(queue) }
    // Whatever comes of it, everything is let go of.
    defer { disconnect(device, leavingRecord: true) }
    let deadline = Uptime.now.nanoseconds + 1_000_000_000
    var indices: [String] = []
    for queue in queues {
      do throws(DeviceError) { indices.append("\(try queue.finish(until: deadline))") } catch {
        // What has no answer is in the record, and done again by whoever comes next, as after a kill.
        guard case .unavailable = error, record != nil else { throw error }
        device.log.warning("\(device.own.path): \(error)")
      }
    }
    return resumePoint ?? indices.joined(separator: " ")
  }

  func disconnect(_ device: XenbusDevice) { disconnect(device, leavingRecord: false) }

  /// What had no answer when this process ended is another one's to do, as after a kill.
  func end(_ device: XenbusDevice) { disconnect(device, leavingRecord: true) }

  private func disconnect(_ device: XenbusDevice, leavingRecord: Bool) {
    guard !queues.isEmpty else {
      // It never came so far that anybody was told of its record.
      record?.remove()
      return letGo()
    }
    for queue in queues { device.stop(queue) }
    let deadline = Uptime.now.nanoseconds + 1_000_000_000
    var statistics = BlkBackStatistics()
    for queue in queues {
      let remainder = queue.leave()
      if !remainder.settle(until: deadline) {
        device.log.error(
          "\(device.own.path): the store does not complete what it was given; it keeps the buffers until it has")
        remainders.keep(remainder, of: device.own.path)
      }
      device.log.debug("\(device.own.path): disconnected; \(queue.ringDump)")
      statistics += queue.statistics
    }
    whenClosed(device, statistics)
    if !leavingRecord { record?.remove() }
    letGo()
  }

  /// The last references: the rings are unmapped and the ports closed here, and the record is anybody's.
  private func letGo() { (queues, record, size, failure) = ([], nil, nil, nil) }
}

extension XenbusDevice {
  /// What the toolstack's `mode` says: "r" or "ro" refuse writes, "w", "rw" and an absent key allow them; "!" after it
  /// means that somebody else may use the disk as well, which is nothing to us.
  public func isReadOnly() throws(DeviceError) -> Bool {
    switch try own.optionalString("mode") ?? "w" {
    case "w", "rw", "w!": return false
    case "r", "ro", "r!": return true
    case let mode: throw .malformedKey(path: own.path(of: "mode"), value: mode, expected: "r or w")
    }
  }
}
