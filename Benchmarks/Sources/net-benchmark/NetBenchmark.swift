import ArgumentParser
import Glibc
import Logging
import NetBack
import NetFront
import Synchronization
import XenLoopback

/// Packets one way through both ends of a card on an in-process Xen: a thread for the frontend, and one for each of the
/// backend's queues, as net-twin has them.
@main struct NetBenchmark: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "net-benchmark")

  enum Direction: String, ExpressibleByArgument { case tx, rx }

  @Argument(help: "tx: the frontend sends; rx: it receives.") var direction: Direction
  @Argument(help: "How long each packet is, from 64 to 65535; one that no wire takes is to be cut.") var byteCount: Int
  @Argument(help: "How many queues.") var queueCount: Int
  @Argument(help: "How long to measure.") var seconds: Double

  func validate() throws {
    guard (64...65535).contains(byteCount), (1...8).contains(queueCount), seconds > 0 else {
      throw ValidationError("64 to 65535 bytes, 1 to 8 queues, and some seconds")
    }
  }

  func run() throws {
    let loopback = Loopback()
    let log = Logger(label: "benchmark") { _ in SwiftLogNoOpLogHandler() }
    let (driverDomain, guest) = (loopback.addDomain(), loopback.addDomain())
    guest.sharedPageLimit = 1024 * queueCount
    let device = try Toolstack(on: driverDomain).addVif(
      to: guest.domain, servedBy: driverDomain.domain, mac: "00:16:3e:00:00:01")
    let packets = Packets(byteCount: byteCount)
    let end = try Meter(packets: direction == .rx ? packets : nil)
    let features = NetFeatures(maxQueueCount: queueCount)
    let backend = try BusThread(on: driverDomain, log: log) { (bus) throws(XenstoreError) in
      try bus.register(NetBackDriver(features: features) { _ in end })
      return nil
    }
    let bus = try Bus(on: guest, log: log)
    let card = NetFrontDevice(features: features)
    try bus.register(card, at: device.frontendPath)
    precondition(bus.run(seconds: 10) { card.isConnected }, "\(bus.report)")
    precondition(card.queueStatistics.count == queueCount, "\(card.negotiation)")
    // Every array has its size, and every page has been touched.
    _ = try work(card, end, packets, seconds: 0.2)
    let (count, elapsed) = try work(card, end, packets, seconds: seconds)
    print(Int(Double(count) / elapsed), Int(Double(count) * Double(byteCount) / elapsed))
    bus.close()
    _ = bus.run(seconds: 10) { bus.isEmpty }
    backend.end(within: 10)
    backend.join()
  }

  /// - Returns: how many packets have arrived at the other end, and in how many seconds.
  private func work(
    _ card: NetFrontDevice, _ end: Meter, _ packets: Packets, seconds: Double
  ) throws -> (UInt64, Double) {
    // A property wrapper's getter is a call each time.
    let (direction, byteCount) = (direction, byteCount)
    let isSegmented = packets.metadata.segmentation != nil
    let bytes = packets.bytes.span
    let start = ContinuousClock.now
    let deadline = start + .seconds(seconds)
    var (received, sent) = (UInt64(0), 0)
    var sleep = AdaptiveSleep()
    var waits = [pollfd(fd: -1, events: Int16(POLLIN), revents: 0)]
    let before = end.takenCount
    while ContinuousClock.now < deadline {
      var isFull = false
      if direction == .tx {
        for _ in 0..<64 where !isFull {
          do throws(NetFrontError) {
            try card.send(bytes.extracting(packets.place(of: sent)), packets.metadata)
            sent &+= 1
          } catch {
            guard case .busy = error else { throw error }
            isFull = true
          }
        }
      }
      var taken: UInt64 = 0
      card.push()
      card.poll(looks: sleep.looks) { _ in taken += 1 }
      card.push()
      received += taken
      // Nothing to do before the backend has done something.
      let isIdle =
        direction == .tx ? isFull && !card.hasRoom(for: byteCount, isSegmented: isSegmented) : taken == 0
      if isIdle, let descriptor = card.descriptor {
        waits[0].fd = descriptor
        _ = sleep.wait(for: &waits, timeout: 100) { card.hasWork }
      }
    }
    let elapsed = (ContinuousClock.now - start) / .seconds(1)
    return (direction == .tx ? end.takenCount - before : received, elapsed)
  }
}

/// TCP packets of 64 flows one behind the other, to be cut if they are longer than a wire takes.
struct Packets: Sendable {
  private(set) var bytes: [UInt8] = []
  let metadata: NetPacketMetadata
  private let byteCount: Int
  /// Each begins at a cache line of its own.
  private var stride: Int { (byteCount + 63) & ~63 }

  init(byteCount: Int) {
    self.byteCount = byteCount
    let isLong = byteCount > NetIf.defaultMTU + NetIf.headerByteCount
    metadata = NetPacketMetadata(
      checksum: .blank,
      segmentation: isLong ? NetPacketMetadata.Segmentation(.tcpv4, payloadByteCount: 1448) : nil)
    for number in 0..<64 { append(port: UInt16(40_000 + number)) }
  }

  private mutating func append(port: UInt16) {
    let (start, ip) = (bytes.count, byteCount - 14)
    bytes += [0, 0x16, 0x3E, 0, 0, 2, 0, 0x16, 0x3E, 0, 0, 1, 8, 0, 0x45, 0, UInt8(ip >> 8), UInt8(ip & 0xFF)]
    bytes += [0, 1, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, UInt8(port >> 8), UInt8(port & 0xFF), 0, 80]
    bytes += [0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xFF, 0xFF, 0, 0, 0, 0]
    bytes += [UInt8](repeating: 0xA5, count: start + stride - bytes.count)
  }

  /// Where in the bytes the packet with this number is; they come round again.
  func place(of number: Int) -> Range<Int> {
    let start = (number & 63) * stride
    return start..<start + byteCount
  }
}

/// An end that counts what it takes, and always has something to give; each queue has one of its own.
final class Meter: NetworkEnd {
  let offloads = NetOffloads.all
  private let packets: Packets?
  private let wakeup: Wakeup
  private let taken: Taken

  private final class Taken: Sendable { let count = Atomic<UInt64>(0) }

  convenience init(packets: Packets?) throws(ResourceError) { try self.init(packets, Taken()) }

  private init(_ packets: Packets?, _ taken: Taken) throws(ResourceError) {
    (self.packets, self.taken) = (packets, taken)
    wakeup = try Wakeup()
    if packets != nil { wakeup.signal() }
  }

  var takenCount: UInt64 { taken.count.load(ordering: .relaxed) }

  func ends(forQueues queueCount: Int, guestOffloads: NetOffloads) throws(DeviceError) -> [any NetworkEnd] {
    var ends: [any NetworkEnd] = [self]
    do throws(ResourceError) {
      for _ in 1..<queueCount { ends.append(try Meter(packets, taken)) }
    } catch { throw .resource("\(error)") }
    return ends
  }

  func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
    taken.count.wrappingAdd(UInt64(frames.count), ordering: .relaxed)
  }

  func give(to guest: inout FrameQueue) {
    guard let packets else { return }
    let bytes = packets.bytes.span
    var next = 0
    while guest.hasRoom(for: packets.place(of: 0).count) {
      guest.put(bytes.extracting(packets.place(of: next)), packets.metadata)
      next += 1
    }
  }

  var wakeDescriptor: CInt? { packets == nil ? nil : wakeup.descriptor }
}
