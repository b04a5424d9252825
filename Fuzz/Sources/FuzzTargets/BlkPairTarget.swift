import BlkBack
import BlkFront

/// A disk with both its ends. What was written is what is read, everything is answered, and at the end nothing is held.
func fuzzBlkPair(_ input: inout FuzzInput) {
  do { try BlkPairRun(&input).run(&input) } catch { fatalError("the rig: \(error)") }
}

private final class BlkPairRun {
  private static let sectorCount = 256
  private struct Request {
    let isWrite: Bool
    let sectors: Range<Int>
    let value: UInt8
    /// What each of them held when this was put; nil where that is not known.
    let before: [UInt8?]
    /// Whether a write to one of them was under way at the same time.
    var isDisturbed = false
  }

  private let disk: BlkFrontDevice
  private let rig: PairRig
  private var held = [UInt8?](repeating: 0, count: sectorCount)
  private var requests: [UInt64: Request] = [:]
  private var tag: UInt64 = 0

  init(_ input: inout FuzzInput) throws {
    var front = BlkFrontOptions(layout: input.flag() ? .x86_32 : .x86_64, poolPageCount: 11 + input.below(64))
    front.maxQueueCount = 1 + input.below(2)
    front.maxRingPageOrder = input.below(2)
    front.maxIndirectSegmentCount = input.pick([0, 32, 64])
    front.usesPersistentGrants = input.flag()
    front.requeuesRequests = input.flag()
    var back = BlkBackOptions(offersFlush: input.flag(), offersPersistentGrants: input.flag())
    back.persistentPageCount = 1 + input.below(64)
    back.maxIndirectSegmentCount = input.pick([0, 32, 256])
    // As few as may be, so that requests wait for them.
    back.bufferPageCount = max(11, back.maxIndirectSegmentCount) + input.below(64)
    let store = MemoryStore(sectorCount: UInt64(Self.sectorCount))
    disk = BlkFrontDevice(front)
    rig = try PairRig(frontend: disk, backend: BlkBackDriver(options: back) { _ in store }) {
      (toolstack, guest, driverDomain) throws(DeviceError) in
      try toolstack.addVbd(to: guest, servedBy: driverDomain, params: "fuzz")
    }
    rig.add(
      Sleeper { [disk] in
        [disk.descriptor].compactMap(\.self)
      } poll: { [unowned self] _, _ in
        poll()
        return .idle
      })
  }

  func run(_ input: inout FuzzInput) throws {
    require(rig.settle { disk.isConnected && rig.backBus.isConnected }, "both ends connect")
    var steps = 0
    while !input.isEmpty, steps < 400 {
      steps += 1
      switch input.next(UInt8.self) % 8 {
      case 0, 1: put(&input, isWrite: true)
      case 2: put(&input, isWrite: false)
      case 3: disk.push()
      case 4: rig.pollUsers()
      default: try rig.step(&input)
      }
    }
    rig.endFaults()
    disk.push()
    // By events alone: an end that was not told of something sleeps on.
    let done = rig.settle { disk.inFlightCount == 0 || rig.frontBus.isEmpty }
    // Where the device was unplugged, what is under way waits for a disk that does not come back.
    require(done || rig.isPerhapsGone, "\(disk.inFlightCount) requests are never answered")
    rig.finish()
    require(requests.isEmpty || rig.isPerhapsGone, "\(requests.count) requests have no answer")
  }

  private func put(_ input: inout FuzzInput, isWrite: Bool) {
    let first = input.below(Self.sectorCount)
    let sectors = first..<min(first + 1 + input.below(100), Self.sectorCount)
    tag += 1
    let value = UInt8(truncatingIfNeeded: tag)
    do throws(BlkFrontError) {
      if isWrite {
        let bytes = [UInt8](repeating: value, count: sectors.count * 512)
        if input.below(8) == 0 {
          try disk.writeBarrier(sector: UInt64(first), bytes.span, tag: tag)
        } else {
          try disk.write(sector: UInt64(first), bytes.span, tag: tag)
        }
      } else if input.below(8) == 0 {
        try disk.flush(tag: tag)
        requests[tag] = Request(isWrite: false, sectors: 0..<0, value: 0, before: [])
        return
      } else {
        try disk.read(sector: UInt64(first), byteCount: sectors.count * 512, tag: tag)
      }
    } catch { return }
    var request = Request(isWrite: isWrite, sectors: sectors, value: value, before: Array(held[sectors]))
    for (other, existing) in requests where existing.sectors.overlaps(sectors) && (isWrite || existing.isWrite) {
      requests[other]!.isDisturbed = true
      request.isDisturbed = true
    }
    requests[tag] = request
    if isWrite { for sector in sectors { held[sector] = nil } }
  }

  private func poll() {
    disk.poll { completion in
      guard let request = requests.removeValue(forKey: completion.tag) else {
        fatalError("request \(completion.tag) was answered twice")
      }
      guard completion.result == .succeeded else {
        require(rig.isDisturbed || completion.result == .notSupported, "\(completion.result) on a sound device")
        return
      }
      if request.isWrite {
        guard !request.isDisturbed else { return }
        for sector in request.sectors { held[sector] = request.value }
      } else {
        let bytes = completion.copied()
        require(bytes.count == request.sectors.count * 512, "as many bytes as were asked for")
        guard !request.isDisturbed else { return }
        for (place, value) in request.before.enumerated() {
          guard let value else { continue }
          require(
            bytes[place * 512] == value && bytes[place * 512 + 511] == value,
            "sector \(request.sectors.lowerBound + place) holds \(bytes[place * 512]), and \(value) was written")
        }
      }
    }
  }
}
