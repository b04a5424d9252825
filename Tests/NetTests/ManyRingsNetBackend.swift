import NetIf
import TestSupport
import XenRing

/// A backend without manners that maps every ring of its frontend's, of however many queues, and answers as a test says.
final class ManyRingsNetBackend: BackendDriver, Backend {
  private final class Queue {
    var tx: BackRing<NetIfTxRequest, NetIfTxResponse>
    var rx: BackRing<NetIfRxRequest, NetIfRxResponse>
    let txBytes: SharedBytes
    var channels: EventChannelPair
    /// Of requests taken from the receive ring, those not answered.
    var pages: [NetIfRxRequest] = []

    init(tx: consuming SharedRegion, rx: consuming SharedRegion, _ channels: EventChannelPair) {
      txBytes = tx.bytes
      self.tx = BackRing(attaching: tx)
      self.rx = BackRing(attaching: rx)
      self.channels = channels
    }
  }

  let type = "vif"
  let negotiation = Negotiation()
  let watchedKeys = ["xdp-headroom", "request-multicast-control"]
  /// What it offers before the frontend publishes anything, besides `feature-rx-copy` and `feature-sg`.
  var offered: [StoreEntry]
  /// What it writes beside the state in which it is connected.
  var keysAtTheConnection: [StoreEntry] = []
  private(set) var device: XenbusDevice?
  private var queues: [Queue] = []
  private let buffer = PrivatePages(pageCount: 1)
  /// What to do when the frontend has changed its keys.
  var whenChanged: (XenbusDevice) throws(DeviceError) -> Void = { _ in }

  init(offered: [StoreEntry] = ManyRingsNetBackend.everything) { self.offered = offered }

  /// All that Linux's backend offers.
  static let everything = [
    StoreEntry("feature-ipv6-csum-offload", true), StoreEntry("feature-gso-tcpv4", true),
    StoreEntry("feature-gso-tcpv6", true), StoreEntry("feature-multicast-control", true),
    StoreEntry("feature-dynamic-multicast-control", true), StoreEntry("feature-xdp-headroom", true),
    StoreEntry("feature-split-event-channels", true), StoreEntry("multi-queue-max-queues", 4),
  ]

  func probe(_ device: XenbusDevice) throws(DeviceError) -> any Backend {
    self.device = device
    return self
  }

  func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    [StoreEntry("feature-rx-copy", true), StoreEntry("feature-sg", true)] + offered
  }

  func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let other = device.other
    let count = try other.optionalNumber("multi-queue-num-queues", as: Int.self) ?? 1
    for number in 0..<count {
      let prefix = count > 1 ? "queue-\(number)/" : ""
      let tx = try device.map([GrantReference(rawValue: try other.number("\(prefix)tx-ring-ref"))])
      let rx = try device.map([GrantReference(rawValue: try other.number("\(prefix)rx-ring-ref"))])
      let txPort = try other.optionalNumber("\(prefix)event-channel-tx", as: UInt32.self)
      let rxPort = try other.optionalNumber("\(prefix)event-channel-rx", as: UInt32.self)
      var port = txPort ?? 0
      if txPort == nil { port = try other.number("\(prefix)event-channel") }
      let channels = try device.bindEventChannels(
        tx: EventChannelPort(rawValue: port), rx: rxPort.map(EventChannelPort.init(rawValue:)))
      queues.append(Queue(tx: tx, rx: rx, channels))
    }
    return keysAtTheConnection
  }

  func start(_ device: XenbusDevice) {}

  func disconnect(_ device: XenbusDevice) { queues = [] }

  func otherEndChanged(_ device: XenbusDevice) throws(DeviceError) { try whenChanged(device) }

  var queueCount: Int { queues.count }

  // MARK: What the frontend sends

  /// Takes what the frontend has put.
  func requests(queue number: Int = 0) throws -> [NetIfTxRequest] {
    let queue = queues[number]
    var requests: [NetIfTxRequest] = []
    queue.channels.take()
    while try queue.tx.finalCheck() { while let request = queue.tx.next() { requests.append(request) } }
    queue.channels.rearm()
    return requests
  }

  func answer(queue number: Int = 0, _ response: NetIfTxResponse) {
    let queue = queues[number]
    queue.tx.put(response)
    queue.channels.notify(tx: queue.tx.pushAndCheckNotify(), rx: false)
  }

  /// Writes the transmit ring's response producer behind its back, and wakes the frontend.
  func scribbleProducer(queue number: Int, _ value: UInt32) {
    queues[number].txBytes.scribble(value, at: 8)
    queues[number].channels.notify(tx: true, rx: false)
  }

  /// Answers these slots as Linux's backend does, each packet's first slot first, then its extra infos, in whose answers the id
  /// is what the slot happened to hold: here one that is in flight, if any is.
  func answerAll(queue number: Int = 0, _ requests: [NetIfTxRequest]) {
    var (followsExtra, lastID) = (false, UInt16(0))
    for request in requests {
      if followsExtra {
        followsExtra = NetIfExtraInfo(request).hasMore
        answer(queue: number, NetIfTxResponse(id: requests.last?.id ?? lastID, status: NetIf.Status.null))
      } else {
        followsExtra = request.flags & NetIf.TxFlag.extraInfo != 0
        answer(queue: number, NetIfTxResponse(id: request.id, status: NetIf.Status.okay))
        lastID = request.id
      }
    }
  }

  /// Copies out of a page of the frontend's.
  func bytes(of reference: UInt32, from offset: Int = 0, count: Int) -> [UInt8]? {
    copy(.fromGrant, reference, offset, count) ? buffer.bytes.slice(from: 0, count: count).copied() : nil
  }

  /// Writes into a page of the frontend's.
  ///
  /// - Returns: whether that is allowed.
  func write(_ bytes: [UInt8], to reference: UInt32, at offset: Int = 0) -> Bool {
    buffer.bytes.copy(from: bytes.span)
    return copy(.toGrant, reference, offset, bytes.count)
  }

  private func copy(_ direction: GrantCopy.Direction, _ reference: UInt32, _ offset: Int, _ count: Int) -> Bool {
    guard let device else { return false }
    var copies = [
      GrantCopy(
        direction, local: buffer.bytes.slice(from: 0, count: count), reference: GrantReference(rawValue: reference),
        of: device.otherDomain, offset: UInt16(offset))
    ]
    var span = copies.mutableSpan
    device.platform.grants.copy(&span)
    return copies[0].status == .okay
  }

  /// The frame that these slots carry, without looking at their extra infos.
  func frame(_ requests: [NetIfTxRequest]) -> [UInt8] {
    let slots = data(of: requests)
    guard let first = slots.first else { return [] }
    let furtherCount = slots.dropFirst().reduce(0) { $0 + Int($1.size) }
    return slots.enumerated().flatMap { index, slot in
      bytes(
        of: slot.gref, from: Int(slot.offset), count: index == 0 ? Int(first.size) - furtherCount : Int(slot.size))
        ?? []
    }
  }

  /// The slots that are no extra infos.
  func data(of requests: [NetIfTxRequest]) -> [NetIfTxRequest] {
    var followsExtra = false
    return requests.filter { request in
      let isExtra = followsExtra
      followsExtra = isExtra ? NetIfExtraInfo(request).hasMore : request.flags & NetIf.TxFlag.extraInfo != 0
      return !isExtra
    }
  }

  // MARK: What the frontend receives

  /// Pages that the frontend has given and that hold nothing yet, oldest first.
  func pages(queue number: Int = 0) throws -> [NetIfRxRequest] {
    let queue = queues[number]
    while try queue.rx.finalCheck() { while let request = queue.rx.next() { queue.pages.append(request) } }
    return queue.pages
  }

  /// Fills the oldest page.
  ///
  /// - Parameters:
  ///   - offset: where in the page the bytes begin.
  ///   - status: nil for how many there are.
  func fill(
    queue number: Int = 0, _ bytes: [UInt8] = [], at offset: Int = 0, flags: UInt16 = 0, saying said: UInt16? = nil,
    status: Int? = nil
  ) throws {
    let page = try pages(queue: number)[0]
    if !bytes.isEmpty { _ = write(bytes, to: page.gref, at: offset) }
    answer(
      queue: number,
      NetIfRxResponse(
        id: page.id, offset: said ?? UInt16(offset), flags: flags,
        status: Int16(truncatingIfNeeded: status ?? bytes.count)))
  }

  /// Answers the oldest page with an extra info.
  func fill(queue number: Int = 0, _ info: NetIfExtraInfo) throws {
    _ = try pages(queue: number)
    answer(
      queue: number,
      NetIfRxResponse(
        id: UInt16(info.type) | UInt16(info.flags) << 8, offset: info.words.0, flags: info.words.1,
        status: Int16(bitPattern: info.words.2)))
  }

  func answer(queue number: Int = 0, _ response: NetIfRxResponse) {
    let queue = queues[number]
    queue.pages.removeFirst()
    queue.rx.put(response)
    queue.channels.notify(tx: false, rx: queue.rx.pushAndCheckNotify())
  }
}
