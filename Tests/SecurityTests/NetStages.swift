import NetBack
import NetFront
import Synchronization
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// A card's backend that is attacked by the guest of its first card; the second card is another guest's.
final class NetBackStage: Stage {
  let honest = NetFrontDevice()
  let end = AttackedEnd()
  private(set) var frontend: HostileNetFrontend!
  private var round = 0

  init(seed: Seed = 1, features: NetFeatures = NetFeatures(), queueHost: (any QueueHost)? = nil) throws {
    try super.init(seed: seed, attacking: .backend, queueHost: queueHost)
    let first = "/\(hostile.domain.rawValue)/"
    try bus.register(
      NetBackDriver(features: features) { [end] device -> any NetworkEnd in
        if device.own.path.contains("vif" + first) { return end } else { return EchoEnd() }
      })
    try begin { number, guest, backend in
      try toolstack.addVif(number, to: guest, servedBy: backend, mac: "00:16:3e:00:00:0\(number)")
    }
    try bystanderBus.register(honest, at: second.frontendPath)
    frontend = HostileNetFrontend(peer, self)
  }

  override func useSecond() throws -> Bool {
    guard run(until: { honest.isConnected }) else { return false }
    return try honest.worksOn(self, &round)
  }
}

/// A card's frontend that is attacked by the backend of its first card; the second card is served by another domain.
final class NetFrontStage: Stage {
  let card: NetFrontDevice
  let other = NetFrontDevice()
  private(set) var backend: HostileNetBackend!
  private(set) var received: [[UInt8]] = []
  private var round = 0

  init(seed: Seed = 1, features: NetFeatures = NetFeatures(), isTrusted: Bool = true) throws {
    card = NetFrontDevice(features: features)
    try super.init(seed: seed, attacking: .frontend)
    try bystanderBus.register(NetBackDriver { _ in EchoEnd() })
    try begin { number, guest, backend in
      try toolstack.addVif(number, to: guest, servedBy: backend, mac: "00:16:3e:00:00:0\(number)")
    }
    if !isTrusted { try StoreDirectory(device.frontendPath, in: store).write([StoreEntry("trusted", "0")]) }
    try bus.register(card, at: device.frontendPath)
    try bus.register(other, at: second.frontendPath)
    backend = HostileNetBackend(peer, self)
  }

  override func useSecond() throws -> Bool {
    guard run(until: { other.isConnected }) else { return false }
    return try other.worksOn(self, &round)
  }

  func forgetReceived() { received = [] }

  func pollCard() { card.poll(now: scheduler.now) { received.append($0.copied()) } }
}

extension NetFrontDevice {
  /// Sends frames that are echoed.
  fileprivate func worksOn(_ stage: Stage, _ round: inout Int) throws -> Bool {
    round += 1
    let frame = pattern(300, seed: round)
    var received: [[UInt8]] = []
    // What was on its way before may come first.
    try send(frame.span)
    push()
    return stage.run {
      poll(now: stage.scheduler.now) { received.append($0.copied()) }
      return received.contains(frame)
    }
  }
}

/// What the hostile guest's frames go to, with a test's say while they are being taken; sends what it is told to.
final class AttackedEnd: NetworkEnd {
  private let hook = Mutex<(@Sendable () -> Void)?>(nil)
  private let taken = Mutex<[[UInt8]]>([])
  private let toGuest = Mutex<[[UInt8]]>([])
  private let refused = Atomic(0)

  func whenTaken(_ body: (@Sendable () -> Void)?) { hook.withLock { $0 = body } }

  /// What has arrived since the last call.
  func frames() -> [[UInt8]] {
    taken.withLock { taken in
      defer { taken = [] }
      return taken
    }
  }

  func send(_ frame: [UInt8]) { toGuest.withLock { $0.append(frame) } }

  /// Frames that the line had no room for.
  var refusedCount: Int { refused.load(ordering: .relaxed) }

  func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
    hook.withLock { $0 }?()
    taken.withLock { for index in frames.indices { $0.append(frames[index].bytes.copied()) } }
  }

  func give(to guest: inout FrameQueue) {
    let frames = toGuest.withLock { waiting in
      defer { waiting = [] }
      return waiting
    }
    for frame in frames where !guest.put(frame.span) { refused.wrappingAdd(1, ordering: .relaxed) }
  }
}

/// A card's frontend by hand.
final class HostileNetFrontend {
  let peer: HostilePeer
  private unowned let stage: Stage
  private(set) var tx: HostileRing!
  private(set) var rx: HostileRing!
  private(set) var references: [GrantReference] = []
  private(set) var taken: UInt32 = 0

  init(_ peer: HostilePeer, _ stage: Stage) { (self.peer, self.stage) = (peer, stage) }

  func publish(keys: [(String, String)] = []) throws {
    try stage.expectState(.initWait)
    for (ring, stride) in [("tx", 12), ("rx", 8)] {
      let reference = try peer.share(ring)[0]
      peer.ring(ring, stride: stride).initialise()
      try peer.write("\(ring)-ring-ref", reference.rawValue)
    }
    (tx, rx, taken) = (peer.ring("tx", stride: 12), peer.ring("rx", stride: 8), 0)
    references = try peer.share("data", pageCount: 32)
    for (key, value) in [("request-rx-copy", "1"), ("feature-rx-notify", "1"), ("feature-sg", "1")] {
      try peer.write(key, value)
    }
    try peer.write("event-channel", peer.allocateChannel().rawValue)
    for (key, value) in keys { try peer.write(key, value) }
    try peer.write(.connected)
  }

  func connect(keys: [(String, String)] = []) throws {
    try publish(keys: keys)
    try stage.expectState(.connected)
  }

  func page(_ number: Int) -> SharedBytes { peer.bytes("data").slice(from: number * 4096, count: 4096) }

  func put(_ request: NetIfTxRequest) {
    tx.request(request)
    peer.notify()
  }

  /// Grants a page for a frame.
  func post(_ page: Int, id: UInt16) {
    rx.request(NetIfRxRequest(id: id, gref: references[page]))
    peer.notify()
  }

  func txResponses(_ count: Int) throws -> [NetIfTxResponse] {
    let answered = stage.run { tx.responseProducer &- taken >= UInt32(count) }
    try #require(answered, "\(tx.responseProducer &- taken) of \(count) answers: \(stage.bus.report)")
    var responses: [NetIfTxResponse] = []
    for _ in 0..<count {
      responses.append(tx.entry(taken))
      taken &+= 1
    }
    return responses
  }
}

/// A card's backend by hand, of one queue.
final class HostileNetBackend {
  let peer: HostilePeer
  private unowned let stage: Stage
  private(set) var tx: HostileRing!
  private(set) var rx: HostileRing!
  private(set) var taken: UInt32 = 0

  init(_ peer: HostilePeer, _ stage: Stage) { (self.peer, self.stage) = (peer, stage) }

  func connect(keys: [(String, String)] = []) throws {
    for (key, value) in [("feature-rx-copy", "1"), ("feature-sg", "1")] + keys { try peer.write(key, value) }
    try peer.write(.initWait)
    try stage.expectState(.connected)
    for (ring, stride) in [("tx", 12), ("rx", 8)] {
      try peer.map(ring, [GrantReference(rawValue: try peer.other.number("\(ring)-ring-ref"))])
      if ring == "tx" { tx = peer.ring(ring, stride: stride) } else { rx = peer.ring(ring, stride: stride) }
    }
    try peer.bindChannel(to: EventChannelPort(rawValue: try peer.other.number("event-channel")))
    taken = 0
    try peer.write(.connected)
    stage.run(turns: 5)
  }

  /// - Parameter limit: how many at most, where the producer index may be anything.
  func txRequests(limit: Int = .max) -> [NetIfTxRequest] {
    var requests: [NetIfTxRequest] = []
    while taken != tx.requestProducer, requests.count < limit {
      requests.append(tx.entry(taken))
      taken &+= 1
    }
    return requests
  }

  func answer(_ response: NetIfTxResponse) {
    tx.respond(response)
    peer.notify()
  }

  func answer(_ response: NetIfRxResponse) {
    rx.respond(response)
    peer.notify()
  }

  func rxRequest(_ slot: UInt32) -> NetIfRxRequest { rx.entry(slot) }
}
