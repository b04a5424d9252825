import CLinux
import Glibc
import NetIf
import Synchronization

/// One of a TAP device's queues: one open file, and one system call a packet.
///
/// Safe to use from several threads.
final class TapQueue: Sendable {
  let descriptor: CInt
  private let gone = Atomic(false)
  private let misfits = Atomic<UInt64>(0)

  /// - Throws: ``TapError``, which names the interface and what to do.
  init(of name: String, isMultiQueue: Bool) throws(TapError) {
    // Safe: the call reads a string of ours.
    descriptor = unsafe open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)
    guard descriptor >= 0 else { throw .noDriver(reason: TapError.reason) }
    // Safe: the call reads a string of ours.
    guard unsafe name.withCString({ unsafe linux_tap_attach(descriptor, $0, isMultiQueue ? 1 : 0) }) == 0 else {
      // The end of this object closes the descriptor.
      switch errno {
      case EBUSY: throw .inUse(name)
      case EPERM, EACCES: throw .notPermitted(name)
      case EINVAL: throw .notATap(name)
      default: throw .system(name: name, call: "TUNSETIFF", reason: TapError.reason)
      }
    }
  }

  deinit {
    // A program that is just being started has a copy of the descriptor until it has begun, and what the machine gives to the queue
    // until then would be lost. Of a device with one queue this does nothing.
    _ = linux_tap_detach(descriptor)
    _ = close(descriptor)
  }

  /// Whether somebody has removed the interface. It does not come back.
  var isGone: Bool { gone.load(ordering: .relaxed) }

  /// Packets that could not be finished as their metadata say, or that the kernel gave as nobody had asked for.
  var misfitCount: UInt64 { misfits.load(ordering: .relaxed) }

  /// - Returns: false when the interface did not take it: it is down, full, or gone, or the packet is none that can be
  ///   finished as the metadata say.
  func send(_ packet: SharedBytes, _ metadata: NetPacketMetadata) -> Bool {
    guard metadata.checksum == .blank || metadata.segmentation != nil else {
      // Nothing is looked at: a peer may still be writing the packet.
      return write(VirtioNetHeader(finished: metadata.checksum), packet)
    }
    let start = unsafe packet.baseAddress.assumingMemoryBound(to: UInt8.self)
    // Safe: an unfinished packet is ours alone, and valid during the call.
    var span = unsafe MutableSpan(_unsafeStart: start, count: packet.count)
    var byteCount = 0
    guard let header = VirtioNetHeader(unfinished: &span, metadata.segmentation, byteCount: &byteCount) else {
      misfits.add(1, ordering: .relaxed)
      return false
    }
    return write(header, packet.slice(from: 0, count: byteCount))
  }

  private func write(_ header: VirtioNetHeader, _ packet: SharedBytes) -> Bool {
    var fields = header.fields
    // Safe: the system call reads the header and the packet's bytes, once.
    let count = unsafe linux_tap_write(descriptor, &fields, packet.baseAddress, UInt(packet.count))
    if count == packet.count + Self.headerByteCount { return true }
    noteWhetherGone()
    return false
  }

  /// - Parameters:
  ///   - buffer: longer than the longest frame, since what does not fit is cut off unseen; ours alone.
  ///   - metadata: what is left to do to it.
  /// - Returns: the frame's length in bytes; zero when there is none.
  func receive(into buffer: SharedBytes, _ metadata: inout NetPacketMetadata) -> Int {
    while true {
      var header = VirtioNetHeader()
      // Safe: the system call writes within the header and the buffer.
      let count = unsafe linux_tap_read(descriptor, &header.fields, buffer.baseAddress, UInt(buffer.count))
      guard count > Self.headerByteCount else {
        if count < 0 { noteWhetherGone() }
        return 0
      }
      let byteCount = count - Self.headerByteCount
      let start = unsafe buffer.baseAddress.assumingMemoryBound(to: UInt8.self)
      // Safe: the kernel has just written so many bytes, and nobody else writes to the buffer.
      var packet = unsafe MutableSpan(_unsafeStart: start, count: byteCount)
      if let found = header.metadata(of: &packet) {
        metadata = found
        return byteCount
      }
      misfits.add(1, ordering: .relaxed)
    }
  }

  private static let headerByteCount = MemoryLayout<linux_virtio_net_header>.size

  /// EBADFD is what a TAP device answers with that has been removed.
  private func noteWhetherGone() { if errno == EBADFD { gone.store(true, ordering: .relaxed) } }
}
