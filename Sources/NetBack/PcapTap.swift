import Glibc
import NetIf
import Pcap
import Synchronization

/// Writes what crosses between a guest and another end into a capture file, both ways, in the order in which it crosses, on
/// all of the card's queues.
///
/// Packets are written as they cross: one that is to be cut into segments is one packet in the file, and a checksum that was
/// left blank is blank there, which a reader of the file calls wrong. The file has no place to say either.
///
/// A file that can no longer be written does not stop the traffic: ``failure`` tells.
public final class PcapTap: NetworkEnd {
  private struct Record: ~Copyable, Sendable {
    var writer: PcapWriter
    var failure: PcapError?

    mutating func add(_ frame: NetworkFrame, at nanoseconds: UInt64) {
      guard failure == nil else { return }
      do throws(PcapError) {
        try frame.withSpan { (bytes) throws(PcapError) in try writer.write(bytes, nanoseconds: nanoseconds) }
      } catch { failure = error }
    }

    mutating func flush() {
      guard failure == nil else { return }
      do throws(PcapError) { try writer.flush() } catch { failure = error }
    }
  }

  /// One file for the ends of all queues.
  private final class Recording: Sendable {
    let record: Mutex<Record>

    init(_ writer: consuming PcapWriter) { record = Mutex(Record(writer: writer, failure: nil)) }
  }

  private let end: any NetworkEnd
  private let clock: @Sendable () -> UInt64
  private let recording: Recording

  /// - Parameters:
  ///   - end: what the frames go to and come from.
  ///   - writer: of Ethernet frames.
  ///   - clock: nanoseconds since the beginning of 1970, UTC; by default the machine's.
  public convenience init(
    _ end: any NetworkEnd, into writer: consuming PcapWriter, clock: @escaping @Sendable () -> UInt64 = PcapTap.now
  ) {
    self.init(end, Recording(writer), clock)
  }

  private init(_ end: any NetworkEnd, _ recording: Recording, _ clock: @escaping @Sendable () -> UInt64) {
    (self.end, self.recording, self.clock) = (end, recording, clock)
  }

  /// Why recording has stopped; nil while it goes on.
  public var failure: PcapError? { recording.record.withLock { $0.failure } }

  /// Has everything so far in the file.
  public func flush() { recording.record.withLock { $0.flush() } }

  public var offloads: NetOffloads { end.offloads }

  /// Those of the end, recorded; what the end has the queues share they share here, too.
  public func ends(forQueues queueCount: Int, guestOffloads: NetOffloads) throws(DeviceError) -> [any NetworkEnd] {
    var taps: [PcapTap] = []
    for end in try end.ends(forQueues: queueCount, guestOffloads: guestOffloads) {
      let known = end === self.end ? self : taps.first { $0.end === end }
      taps.append(known ?? PcapTap(end, recording, clock))
    }
    return taps
  }

  public func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
    let now = clock()
    recording.record.withLock { record in for index in frames.indices { record.add(frames[index], at: now) } }
    let before = guest.count
    end.take(frames, answering: &guest)
    add(guest, from: before)
  }

  public func give(to guest: inout FrameQueue) {
    let before = guest.count
    end.give(to: &guest)
    add(guest, from: before)
  }

  /// What the end has put, and what was not dropped.
  private func add(_ guest: borrowing FrameQueue, from first: Int) {
    guard guest.count > first else { return }
    let now = clock()
    recording.record.withLock { record in for index in first..<guest.count { record.add(guest[index], at: now) } }
  }

  public var wakeDescriptor: CInt? { end.wakeDescriptor }
  public var hasCarrier: Bool { end.hasCarrier }

  /// The machine's time of day.
  public static func now() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
