import BlkBack
@_spi(Measuring) import BlkFront
import BlockStores
import Glibc
import Logging
import NetBack
@_spi(Measuring) import NetFront
import Synchronization
import SystemPackage
import XenBus
import XenLoopback

private let log = Logger(label: "benchmark") { _ in SwiftLogNoOpLogHandler() }

/// Random reads of a disk, `depth` of them in flight.
///
/// - Parameter image: read past the page cache; nil for a disk in memory.
func diskWakeups(
  of image: FilePath?, depth: Int, seconds: Double, sleep: AdaptiveSleep, holdsOff: Bool
) throws -> WakeCounts {
  let loopback = Loopback()
  let (driverDomain, guest) = (loopback.addDomain(), loopback.addDomain())
  guest.sharedPageLimit = 65536
  let device = try Toolstack(on: driverDomain).addVbd(
    to: guest.domain, servedBy: driverDomain.domain, params: "any")
  let counted = Counted()
  let backend = try BusThread(
    on: driverDomain, queueHost: ThreadPerQueue(sleep: sleep), log: log
  ) { (bus) throws(XenstoreError) in
    let driver = BlkBackDriver(whenClosed: { _, statistics in counted.add(statistics.ring) }) {
      (_) throws(DeviceError) in
      guard let image else { return MemoryStore(sectorCount: 1024) }
      do throws(FileStoreError) {
        return try FileStore(path: image, options: FileStoreOptions(direct: .on))
      } catch { throw .resource("\(error)") }
    }
    try bus.register(driver)
    return nil
  }
  let bus = try Bus(on: guest, log: log)
  var options = BlkFrontOptions(poolPageCount: 128 * 11)
  options.maxRingPageOrder = 2
  options.holdsOffEvents = holdsOff
  let disk = BlkFrontDevice(options)
  try bus.register(disk, at: device.frontendPath)
  precondition(bus.run(seconds: 10) { disk.isConnected }, "\(bus.report)")
  let placeCount = (disk.geometry?.sectorCount ?? 0) / 8
  var counts = WakeCounts()
  var (sent, inFlight) = (0, 0)
  var answered: [UInt64] = []
  counts.seconds = try carry(for: seconds, sleep: sleep, hasWork: disk.hasWork) { isOver, looks in
    let putAt = Uptime.now.nanoseconds
    while !isOver, inFlight < depth {
      // Multiplied so that neighbours do not lie beside each other.
      let place = (UInt64(sent) &* 0x9E37_79B9_7F4A_7C15) >> 32 % placeCount
      try disk.read(sector: place * 8, byteCount: 4096, tag: putAt)
      sent += 1
      inFlight += 1
    }
    disk.push()
    answered.removeAll(keepingCapacity: true)
    let completed = disk.poll(looks: looks) {
      precondition($0.result == .succeeded, "a read succeeds")
      answered.append($0.tag)
    }
    counts.note(answered[...])
    inFlight -= completed
    return (completed, inFlight, disk.descriptor)
  }
  counts.requests = sent
  counts.front = disk.statistics ?? RingStatistics()
  bus.close()
  _ = bus.run(seconds: 10) { bus.isEmpty }
  backend.end(within: 10)
  backend.join()
  counts.back = counted.value
  return counts
}

/// Frames to an end that sends each back, `depth` of them on their way. A frame has two requests: the one that it is sent with, and the
/// one that it comes back in.
func cardWakeups(depth: Int, seconds: Double, sleep: AdaptiveSleep, holdsOff: Bool) throws -> WakeCounts {
  let loopback = Loopback()
  let (driverDomain, guest) = (loopback.addDomain(), loopback.addDomain())
  let device = try Toolstack(on: driverDomain).addVif(
    to: guest.domain, servedBy: driverDomain.domain, mac: "00:16:3e:00:00:01")
  let counted = Counted()
  let end = EchoEnd()
  let backend = try BusThread(
    on: driverDomain, queueHost: ThreadPerQueue(sleep: sleep), log: log
  ) { (bus) throws(XenstoreError) in
    let driver = NetBackDriver(whenClosed: { _, statistics in
      counted.add(statistics.total.txRing)
      counted.add(statistics.total.rxRing)
    }) { _ in end }
    try bus.register(driver)
    return nil
  }
  let bus = try Bus(on: guest, log: log)
  let card = NetFrontDevice()
  card.holdsOffTxEvents = holdsOff
  try bus.register(card, at: device.frontendPath)
  precondition(bus.run(seconds: 10) { card.isConnected }, "\(bus.report)")
  let frame = [UInt8](repeating: 0xA5, count: 1500)
  var counts = WakeCounts()
  var (sent, inFlight) = (0, 0)
  // They come back in their order.
  var putAts: [UInt64] = []
  counts.seconds = try carry(for: seconds, sleep: sleep, hasWork: card.hasWork) { isOver, looks in
    let putAt = Uptime.now.nanoseconds
    while !isOver, inFlight < depth {
      do throws(NetFrontError) { try card.send(frame.span) } catch {
        guard case .busy = error else { throw error }
        break
      }
      putAts.append(putAt)
      sent += 1
      inFlight += 1
    }
    card.push()
    var returned = 0
    card.poll(looks: looks) { _ in returned += 1 }
    card.push()
    counts.note(putAts.prefix(returned))
    putAts.removeFirst(returned)
    inFlight -= returned
    return (returned, inFlight, card.descriptor)
  }
  counts.requests = sent
  let statistics = card.statistics
  counts.front = statistics.txRing
  counts.front += statistics.rxRing
  bus.close()
  _ = bus.run(seconds: 10) { bus.isEmpty }
  backend.end(within: 10)
  backend.join()
  counts.back = counted.value
  return counts
}

/// What the backend leaves when it lets go of its device.
private final class Counted: Sendable {
  private let sum = Mutex(RingStatistics())

  func add(_ statistics: RingStatistics) { sum.withLock { $0 += statistics } }

  var value: RingStatistics { sum.withLock { $0 } }
}

/// Has `turn` done until the time is up and nothing is on its way; sleeps where it has done nothing.
///
/// - Parameters:
///   - hasWork: whether a turn would find something, by a look.
///   - turn: told whether the time is up, and whether it is looked on, so that no events need be asked for; gives how many have come
///     back, how many are on their way, and what to sleep on.
/// - Returns: seconds.
private func carry(
  for seconds: Double, sleep: AdaptiveSleep, hasWork: @autoclosure () -> Bool,
  _ turn: (_ isOver: Bool, _ looks: Bool) throws -> (Int, Int, CInt?)
) throws -> Double {
  var sleep = sleep
  let start = ContinuousClock.now
  let deadline = start + .seconds(seconds)
  while true {
    let isOver = ContinuousClock.now >= deadline
    let (returned, inFlight, descriptor) = try turn(isOver, sleep.looks)
    if isOver, inFlight == 0 { return (ContinuousClock.now - start) / .seconds(1) }
    precondition(ContinuousClock.now < deadline + .seconds(10), "\(inFlight) do not come back")
    guard returned == 0, let descriptor else { continue }
    var waits = [pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)]
    _ = sleep.wait(for: &waits, timeout: 1000, hasWork: hasWork)
  }
}
