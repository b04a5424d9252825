import NetFront
import RigHost
import RigSupport

/// What a card asks of Linux's backend besides frames.
///
/// usage: net-front-features hash FRONTEND-PATH ADDRESS PEER SEED MAPPING-COUNT
///        net-front-features groups FRONTEND-PATH ADDRESS PEER GROUP OTHER
///        net-front-features headroom FRONTEND-PATH ADDRESS PEER BEFORE AFTER
///
/// *hash* has the backend hash and spread its frames over four queues by a key and a mapping made from SEED, answers pings until SIGTERM,
/// and has predicted the hash of every frame, and how many come on each queue. *groups* wants frames to both groups
/// to be sent all the while, and joins, leaves and filters. *headroom* asks for BEFORE bytes before each frame when it connects, and for AFTER
/// bytes later.
@main struct NetFrontFeatures {
  static func main() {
    RigProgram.run { arguments in
      let failure = Failure(
        "usage: net-front-features hash FRONTEND-PATH ADDRESS PEER SEED MAPPING-COUNT, "
          + "or groups FRONTEND-PATH ADDRESS PEER GROUP OTHER, or headroom FRONTEND-PATH ADDRESS PEER BEFORE AFTER")
      guard arguments.count >= 4, let address = IPv4Address(arguments[2]), let peer = IPv4Address(arguments[3]) else {
        throw failure
      }
      func host(queueCount: Int = 1) throws -> Host {
        let features = NetFeatures(maxQueueCount: queueCount)
        return try Host(at: arguments[1], address: address, peer: peer, features: features)
      }
      switch (arguments[0], arguments.dropFirst(4).map { $0 }) {
      case ("hash", let rest) where rest.count == 2:
        guard let seed = UInt64(rest[0]), let mappingCount = Int(rest[1]), (0...128).contains(mappingCount) else {
          throw failure
        }
        try check(hashing: host(queueCount: 4), seed: seed, mappingCount: mappingCount)
      case ("groups", let rest) where rest.count == 2:
        guard let group = MACAddress(rest[0]), let other = MACAddress(rest[1]) else { throw failure }
        try check(group: group, beside: other, host())
      case ("headroom", let rest) where rest.count == 2:
        let sizes = rest.compactMap { Int($0) }
        guard sizes.count == 2, sizes.allSatisfy((0...NetFrontDevice.maxHeadroomByteCount).contains) else {
          throw failure
        }
        try check(headroom: sizes, host())
      default: throw failure
      }
    }
  }

  // MARK: Hashing

  private static func check(hashing host: Host, seed: UInt64, mappingCount: Int) throws {
    var numbers = seed
    func next() -> UInt64 {
      // Knuth's MMIX.
      numbers = numbers &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return numbers >> 33
    }
    let key = (0..<Toeplitz.maxKeyByteCount).map { _ in UInt8(truncatingIfNeeded: next()) }
    // The first four are the four queues.
    let mapping = (0..<mappingCount).map { $0 < 4 ? UInt32($0) ^ UInt32(seed & 3) : UInt32(next() % 4) }
    let configuration = NetHashConfiguration(toeplitz: key, mapping: mapping)
    host.card.setHashing(configuration)
    try host.connect()
    RigProgram.say("\(host.card.negotiation)")
    guard host.card.queueStatistics.count == 4, let steering = NetHashSteering(configuration, queueCount: 4) else {
      throw Failure("the card has \(host.card.queueStatistics.count) queues, and not 4")
    }
    guard try host.run(seconds: 10, until: { host.card.hashing == .set(configuration) }) else {
      throw Failure("the backend does not set hashing: \(host.card.hashing)")
    }
    // What came before that is nobody's to predict.
    let before = host.card.queueStatistics.map(\.rx.packets)
    var predicted = [UInt64](repeating: 0, count: 4)
    var kinds: [String: Int] = [:]
    host.look = { frame, bytes in
      let hash = steering.hash(of: bytes.span)
      guard frame.metadata.hash == hash else {
        throw Failure(
          "a frame has the hash \(String(describing: frame.metadata.hash)) and not \(String(describing: hash)): \(bytes)"
        )
      }
      predicted[steering.queue(for: hash)] += 1
      kinds[hash.map { "\($0.kind)" } ?? "none", default: 0] += 1
    }
    RigProgram.say("hashing by \(configuration)")
    _ = try host.run(seconds: 120) { false }
    let arrived = zip(host.card.queueStatistics, before).map { $0.rx.packets - $1 }
    RigProgram.say("predicted \(predicted), arrived \(arrived)")
    for (kind, count) in kinds.sorted(by: { $0.key < $1.key }) { RigProgram.say("hashed \(kind): \(count)") }
    guard arrived == predicted else { throw Failure("frames arrive on other queues than Toeplitz predicts") }
    guard !arrived.contains(0) else { throw Failure("nothing has come on one of the queues") }
    try host.loop.leave()
  }

  // MARK: Groups

  private static func check(group: MACAddress, beside other: MACAddress, _ host: Host) throws {
    let card = host.card
    var counts: (group: Int, other: Int) = (0, 0)
    host.look = { _, bytes in
      let destination = MACAddress(InlineArray<6, UInt8> { bytes[$0] })
      if destination == group { counts.group += 1 }
      if destination == other { counts.other += 1 }
    }
    // What was on its way arrives yet; then three seconds are counted.
    func expect(group wantsGroup: Bool, other wantsOther: Bool, _ words: String) throws {
      _ = try host.run(seconds: 1) { false }
      counts = (0, 0)
      _ = try host.run(seconds: 3) { false }
      RigProgram.say("\(words): \(counts.group) frames to the group, \(counts.other) to the other one")
      guard (counts.group > 0) == wantsGroup, (counts.other > 0) == wantsOther else {
        throw Failure("\(words): that is not what should arrive")
      }
    }
    card.setMulticastFilter(true)
    try card.join(group)
    try host.connect()
    RigProgram.say("\(card.negotiation)")
    try host.findPeer()
    try expect(group: true, other: false, "joined")
    try card.leave(group)
    card.push()
    try expect(group: false, other: false, "left")
    try card.join(group)
    card.push()
    try expect(group: true, other: false, "joined again")
    card.setMulticastFilter(false)
    try expect(group: true, other: true, "without a filter")
    card.setMulticastFilter(true)
    try expect(group: true, other: false, "with a filter again")
    guard card.refusedGroups.isEmpty else { throw Failure("the backend has refused \(card.refusedGroups)") }
    try host.loop.leave()
  }

  // MARK: Headroom

  private static func check(headroom sizes: [Int], _ host: Host) throws {
    let card = host.card
    try card.setHeadroom(sizes[0])
    try host.connect()
    RigProgram.say("\(card.negotiation)")
    try host.findPeer()
    for byteCount in sizes {
      try card.setHeadroom(byteCount)
      guard try host.run(seconds: 5, until: { card.headroomByteCount == byteCount && card.isConnected }) else {
        throw Failure("the backend does not leave \(byteCount) bytes: \(card.headroomByteCount)")
      }
      // Frames that were on their way have what they had.
      _ = try host.run(seconds: 1) { false }
      var count = 0
      host.look = { frame, _ in
        count += 1
        guard frame.headroomByteCount == byteCount else {
          throw Failure("\(frame.headroomByteCount) bytes are free before a frame, and not \(byteCount)")
        }
      }
      try host.ping(count: 60)
      host.look = nil
      guard count >= 60 else { throw Failure("\(count) frames have come, and 60 replies must be among them") }
      RigProgram.say("\(byteCount) bytes before each of \(count) frames")
    }
    try host.loop.leave()
    let sum = card.statistics
    guard sum.tx.errors + sum.tx.drops + sum.rx.errors + sum.rx.drops == 0 else {
      throw Failure("frames were lost: \(sum)")
    }
  }
}
