import Glibc
import NetBack
import NetFront
import Pcap
import Synchronization
import SystemPackage
import TestSupport
import Testing
import XenLoopback

/// The ends that come with the library, and the line in which frames wait.
struct NetworkEndTests {
  @Test func frameQueueKeepsOrderAndBoundsAcrossItsWrap() {
    var queue = FrameQueue(capacity: 3)
    for number in 0..<10 {
      let (one, two) = (frame(number, byteCount: 14 + number), frame(number + 100, byteCount: 4096))
      let (first, second) = (queue.put(one.span), queue.put(two.span))
      #expect(first && second)
      let (count, hasRoom) = (queue.count, queue.hasRoom)
      #expect(count == 2 && hasRoom)
      let (firstBytes, secondBytes) = (queue[0].bytes.copied(), queue[1].bytes.copied())
      #expect(firstBytes == one && secondBytes == two)
      queue.removeFirst(2)
    }
    let fits = frame(1)
    for _ in 0..<3 { queue.put(fits.span) }
    let full = queue.put(fits.span)
    queue.removeFirst()
    let (short, long) = ([UInt8](repeating: 0, count: 13), [UInt8](repeating: 0, count: 65536))
    let (tooShort, tooLong) = (queue.put(short.span), queue.put(long.span))
    let (drops, count) = (queue.dropCount, queue.count)
    #expect(!full && !tooShort && !tooLong && drops == 3 && count == 2)
  }

  @Test(arguments: seeds(1...20, of: NetworkEndTests.self))
  func inProcessEndCarriesBothWays(seed: Seed) throws {
    let end = try InProcessEnd(capacity: 16)
    let pair = try NetPair(seed: seed, end: end)
    try pair.connect()
    let count = 600
    var (toCard, fromCard) = (0, 0)
    var arrived: [[UInt8]] = []
    let done = try pair.scheduler.run(turns: 50_000) {
      if toCard < count {
        let one = frame(toCard, byteCount: 14 + toCard)
        if end.send(one.span) { toCard += 1 }
      }
      // The card waits for what it sends to be received: the end's mailbox is small.
      if fromCard < count, fromCard - arrived.count < 16 {
        let one = frame(fromCard, byteCount: 614 - fromCard)
        try pair.card.send(one.span)
        fromCard += 1
      }
      pair.card.push()
      pair.pollCard()
      end.receive { arrived.append($0.bytes.copied()) }
      return pair.received.count == count && arrived.count == count
    }
    #expect(done, "\(pair.received.count) received, \(arrived.count) arrived")
    #expect(pair.received == (0..<count).map { frame($0, byteCount: 14 + $0) })
    #expect(arrived == (0..<count).map { frame($0, byteCount: 614 - $0) })
    #expect(end.dropCount == 0)
  }

  /// The guest has 256 pages out and as many frames wait in the queue; the rest waits in the mailbox, and nobody spins.
  @Test func anEndWhoseGuestDoesNotReceiveSleeps() throws {
    let end = try InProcessEnd(capacity: 300)
    let pair = try NetPair(end: end)
    try pair.connect()
    var sent = 0
    for _ in 0..<400 {
      let one = frame(sent)
      while end.send(one.span) { sent += 1 }
      pair.scheduler.round()
    }
    // The queue has taken the first mailbox whole, and the second one is full.
    #expect(sent > 800)
    var wait = pollfd(fd: try #require(end.wakeDescriptor), events: Int16(POLLIN), revents: 0)
    // Safe: one entry of our own.
    let ready = unsafe poll(&wait, 1, 0)
    #expect(ready == 0)
    #expect(pair.receive(sent), "\(pair.received.count) of \(sent)")
    #expect(pair.card.statistics.rx.packets == UInt64(sent))
  }

  /// As a TAP device: its descriptor is readable as long as frames wait in it, whether or not the guest has room.
  private final class AlwaysReadableEnd: NetworkEnd {
    let wakeup = try! Wakeup()
    let calls = Atomic(0)

    init() { wakeup.signal() }

    var wakeDescriptor: CInt? { wakeup.descriptor }

    func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {}

    func give(to guest: inout FrameQueue) {
      calls.add(1, ordering: .relaxed)
      let bytes = frame(1)
      while guest.hasRoom { guest.put(bytes.span) }
    }
  }

  @Test func guestWithoutPagesDoesNotKeepItsThreadBusy() throws {
    let end = AlwaysReadableEnd()
    let rig = try Rig()
    let pair = try ThreadedPair(rig, frontend: RawNetFrontend(), backend: NetBackDriver { _ in end })
    _ = try rig.toolstack.addVif(to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    #expect(pair.run { pair.backBus.isConnected && end.calls.load(ordering: .relaxed) > 0 })
    usleep(200_000)
    #expect(end.calls.load(ordering: .relaxed) < 100)
  }

  /// The queue sleeps on its own thread, the card on this one; descriptors alone wake them.
  @Test func threadsWakeEachOther() throws {
    let rig = try Rig()
    let card = NetFrontDevice()
    let end = try InProcessEnd()
    let device = try rig.toolstack.addVif(
      to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    let pair = try ThreadedPair(rig, frontend: card, backend: NetBackDriver { _ in end })
    #expect(pair.run { card.isConnected && pair.backBus.isConnected })
    for number in 0..<2000 {
      let sent = frame(number)
      var received: [UInt8]?
      if number % 2 == 0 {
        try card.send(sent.span)
        card.push()
        while received == nil {
          try #require(isReadable(end.descriptor), "frame \(number) wakes nobody")
          end.receive { received = $0.bytes.copied() }
        }
      } else {
        end.send(sent.span)
        while received == nil {
          try #require(isReadable(try #require(card.descriptor)), "frame \(number) does not wake the card")
          card.poll { received = $0.copied() }
        }
      }
      try #require(received == sent)
    }
    try rig.toolstack.unplug(device)
    #expect(pair.run { pair.backBus.isEmpty && rig.holdsNothing })
  }

  @Test func tapRecordsBothWaysAndWhatTheEndsDo() throws {
    let file = try TemporaryFile()
    let time = Atomic<UInt64>(1_700_000_000_000_000_000)
    let tap = PcapTap(EchoEnd(), into: try PcapWriter(path: file.path)) {
      time.wrappingAdd(1, ordering: .relaxed).oldValue
    }
    let pair = try NetPair(end: tap)
    try pair.connect()
    let sent = (0..<5).map { frame($0, byteCount: 60 + 100 * $0) }
    for (number, one) in sent.enumerated() {
      try pair.card.send(one.span)
      pair.card.push()
      #expect(pair.receive(number + 1))
    }
    tap.flush()
    #expect(tap.failure == nil)
    var reader = try PcapReader(path: file.path)
    var packets: [PcapPacket] = []
    while let packet = try reader.next() { packets.append(packet) }
    #expect(packets.map(\.bytes) == sent.flatMap { [$0, $0] })
    #expect(packets.map(\.nanoseconds) == (0..<10).map { 1_700_000_000_000_000_000 + UInt64($0) })
  }

  @Test func tapHasItsEndsLink() throws {
    let end = try InProcessEnd()
    let tap = PcapTap(end, into: try PcapWriter(path: "/dev/null"))
    #expect(tap.wakeDescriptor == end.wakeDescriptor && tap.hasCarrier)
    end.hasCarrier = false
    #expect(!tap.hasCarrier)
  }

  @Test func tapWhoseFileFailsLetsTheTrafficGoOn() throws {
    let tap = PcapTap(EchoEnd(), into: try PcapWriter(path: "/dev/full"))
    let pair = try NetPair(end: tap)
    try pair.connect()
    let one = frame(1)
    for number in 0..<3 {
      try pair.card.send(one.span)
      pair.card.push()
      #expect(pair.receive(number + 1))
      tap.flush()
    }
    #expect(tap.failure == .cannotWrite("/dev/full", .noSpace))
  }
}
