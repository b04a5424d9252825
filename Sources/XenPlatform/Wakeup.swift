import CLinux
import Glibc

/// Something that the process needs has run out, in words that say what to do.
public struct ResourceError: Error, Hashable, Sendable, CustomStringConvertible {
  public let description: String

  public init(_ description: String) { self.description = description }
}

/// A descriptor that one thread makes readable and another sleeps on (eventfd).
public final class Wakeup: Sendable {
  public let descriptor: CInt

  /// - Throws: when the process has no file descriptor left.
  public init() throws(ResourceError) {
    descriptor = linux_eventfd()
    if descriptor < 0 { throw ResourceError("no file descriptor is left: raise the limit of open files") }
  }

  deinit { _ = Glibc.close(descriptor) }

  /// Makes the descriptor readable until the next ``clear()``.
  public func signal() {
    var one: UInt64 = 1
    // Safe: eight bytes of our own. It fails only when the counter is full, and then the descriptor is readable.
    _ = unsafe Glibc.write(descriptor, &one, 8)
  }

  /// Takes the signals back, however many there were.
  public func clear() {
    var count: UInt64 = 0
    // Safe: eight bytes of our own. It fails when there was no signal.
    _ = unsafe Glibc.read(descriptor, &count, 8)
  }

  /// Sleeps until one of `descriptors` is readable or `timeout` milliseconds have passed (-1: forever); says which are.
  public static func wait(for descriptors: inout [pollfd], timeout: CInt) -> Bool {
    let count = nfds_t(descriptors.count)
    // Safe: the array holds `count` entries.
    return unsafe descriptors.withUnsafeMutableBufferPointer { unsafe Glibc.poll($0.baseAddress, count, timeout) } > 0
  }

  /// Sleeps until `descriptor` is readable or `timeout` milliseconds have passed (-1: forever).
  public static func wait(for descriptor: CInt, timeout: CInt = -1) {
    var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    // Safe: one entry of our own.
    _ = unsafe Glibc.poll(&wait, 1, timeout)
  }
}
