import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// X9: a guest that is suspended and resumed, here or served by another domain, goes on with its disk.
struct BlkFrontSuspendTests {
  private let memory = MemoryStore(sectorCount: 1024)

  private func pair(_ seed: Seed, _ disk: BlkFrontDevice) throws -> BlkPair {
    let pair = try BlkPair(seed: seed, frontend: disk, store: ReorderingStore(memory))
    try pair.connect()
    return pair
  }

  /// Puts writes and reads, some of which are answered before this returns; the bytes that are expected by tag.
  private func work(_ pair: BlkPair, _ disk: BlkFrontDevice, round: Int, _ random: inout SeededGenerator) throws {
    for number in 0..<12 {
      try disk.write(
        sector: UInt64(number * 80), pattern(20_480, seed: round * 100 + number).span, tag: UInt64(round * 100 + number)
      )
    }
    try disk.writeBarrier(
      sector: 1000, pattern(512, seed: round).span, tag: UInt64(round * 100 + 50))
    disk.push()
    for _ in 0..<Int.random(in: 0..<6, using: &random) { pair.scheduler.round() }
  }

  /// Runs until nothing is in flight; how often each request ended, by tag.
  private func finish(_ pair: BlkPair, _ disk: BlkFrontDevice, _ ends: inout [UInt64: [BlkFrontCompletion.Result]])
    -> Bool
  {
    disk.push()
    return pair.scheduler.run {
      disk.poll { ends[$0.tag, default: []].append($0.result) }
      return disk.inFlightCount == 0
    }
  }

  @Test(arguments: seeds(1...30, of: BlkFrontSuspendTests.self), [1, 2])
  func diskGoesOnWhereverItIsServed(seed: Seed, queueCount: Int) throws {
    var options = BlkFrontOptions()
    (options.maxQueueCount, options.maxRingPageOrder) = (queueCount, seed.modulo(2))
    let disk = BlkFrontDevice(options)
    let pair = try pair(seed, disk)
    var random = SeededGenerator(seed)
    var ends: [UInt64: [BlkFrontCompletion.Result]] = [:]
    var device = pair.device
    for round in 0..<4 {
      try work(pair, disk, round: round, &random)
      let portCount = pair.loopback.openPortCount
      pair.guest.suspendAndResume()
      #expect(pair.loopback.grantCounts.sharedPages == 0 && pair.loopback.openPortCount == portCount - queueCount)
      try pair.toolstack.remove(device)
      // Here or on another host.
      var domain = pair.driverDomain
      if Bool.random(using: &random) {
        domain = pair.rig.loopback.addDomain()
        let bus = try Bus(on: domain, queueHost: pair.scheduler.host(of: domain), log: .silent)
        try bus.register(BlkBackDriver { [memory] _ in ReorderingStore(memory) })
        pair.scheduler.add(bus, of: domain, name: "another host's bus") { _ in bus.poll() }
      }
      device = try pair.toolstack.addVbd(to: pair.guest.domain, servedBy: domain.domain, params: "moved")
      pair.frontBus.resume()
      #expect(!disk.isConnected && !pair.frontBus.isConnected)
      #expect(finish(pair, disk, &ends), "\(pair.frontBus.report)")
      for number in Array(0..<12) + [50] {
        #expect(ends[UInt64(round * 100 + number)] == [.succeeded], "\(round) \(number)")
      }
      for number in 0..<12 {
        try disk.read(sector: UInt64(number * 80), byteCount: 20_480, tag: 9999)
        #expect(pair.complete(disk)[9999]?.bytes == pattern(20_480, seed: round * 100 + number))
      }
    }
    try pair.toolstack.unplug(device)
    #expect(pair.scheduler.run { pair.holdsNothing }, "\(pair.loopback.grantCounts) \(pair.loopback.openPortCount)")
  }

  @Test(arguments: seeds(1...10, of: BlkFrontSuspendTests.self))
  func diskWaitsForADeviceThatIsMadeLater(seed: Seed) throws {
    let disk = BlkFrontDevice()
    let pair = try pair(seed, disk)
    var random = SeededGenerator(seed)
    var ends: [UInt64: [BlkFrontCompletion.Result]] = [:]
    try work(pair, disk, round: 0, &random)
    try pair.toolstack.remove(pair.device)
    pair.guest.suspendAndResume()
    pair.frontBus.resume()
    for _ in 0..<20 {
      pair.scheduler.round()
      disk.poll { ends[$0.tag, default: []].append($0.result) }
    }
    #expect(!ends.values.contains { $0.contains(.disconnected) } && !pair.frontBus.isEmpty)
    #expect(
      pair.frontBus.report == [
        "\(pair.device.frontendPath): waits for its directory, since the domain was resumed"
      ])
    _ = try pair.toolstack.addVbd(to: pair.guest.domain, servedBy: pair.driverDomain.domain, params: "late")
    #expect(finish(pair, disk, &ends))
    #expect(ends.count == 13 && ends.values.allSatisfy { $0 == [.succeeded] })
  }

  /// As after a checkpoint: nobody has made the directories anew, and what they say is of the life before.
  @Test(arguments: seeds(1...10, of: BlkFrontSuspendTests.self))
  func directoriesThatAreStillThereAreBegunAnew(seed: Seed) throws {
    let disk = BlkFrontDevice()
    let pair = try pair(seed, disk)
    var random = SeededGenerator(seed)
    var ends: [UInt64: [BlkFrontCompletion.Result]] = [:]
    try work(pair, disk, round: 0, &random)
    pair.guest.suspendAndResume()
    pair.frontBus.resume()
    #expect(finish(pair, disk, &ends), "\(pair.frontBus.report) \(pair.backBus.report)")
    #expect(ends.count == 13 && ends.values.allSatisfy { $0 == [.succeeded] })
  }

  @Test func busThatTakesLeaveEndsWhatWaitsForItsDirectory() throws {
    let disk = BlkFrontDevice()
    let pair = try pair(1, disk)
    try disk.write(sector: 0, pattern(512, seed: 1).span, tag: 1)
    disk.push()
    try pair.toolstack.remove(pair.device)
    pair.guest.suspendAndResume()
    pair.frontBus.resume()
    var ends: [BlkFrontCompletion.Result] = []
    disk.poll { ends.append($0.result) }
    #expect(ends.isEmpty && disk.inFlightCount == 1)
    pair.frontBus.close()
    disk.poll { ends.append($0.result) }
    #expect(ends == [.disconnected] && pair.frontBus.isEmpty)
  }

  @Test func diskThatDoesNotRequeueReportsItsRequestsLostAndConnectsAnew() throws {
    var options = BlkFrontOptions()
    options.requeuesRequests = false
    let disk = BlkFrontDevice(options)
    let pair = try pair(1, disk)
    try disk.write(sector: 0, pattern(512, seed: 1).span, tag: 1)
    disk.push()
    pair.guest.suspendAndResume()
    try pair.toolstack.remove(pair.device)
    _ = try pair.toolstack.addVbd(to: pair.guest.domain, servedBy: pair.driverDomain.domain, params: "moved")
    pair.frontBus.resume()
    var ends: [UInt64: [BlkFrontCompletion.Result]] = [:]
    #expect(finish(pair, disk, &ends) && ends == [1: [.disconnected]])
    #expect(pair.scheduler.run { disk.isConnected })
  }

  /// Backends of a domain that was resumed begin as after a restart.
  @Test func driverDomainThatIsResumedServesAnew() throws {
    let disk = BlkFrontDevice()
    let pair = try pair(1, disk)
    var random = SeededGenerator(1)
    var ends: [UInt64: [BlkFrontCompletion.Result]] = [:]
    try work(pair, disk, round: 0, &random)
    pair.driverDomain.suspendAndResume()
    pair.backBus.resume()
    #expect(finish(pair, disk, &ends), "\(pair.frontBus.report) \(pair.backBus.report)")
    #expect(ends.count == 13 && ends.values.allSatisfy { $0 == [.succeeded] })
  }
}
