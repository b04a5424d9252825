import Glibc
import XenPlatform

/// Whether `descriptor` is readable, or becomes so within this many milliseconds: a minute is enough for what has to come.
public func isReadable(_ descriptor: CInt, within milliseconds: CInt = 60_000) -> Bool {
  var waits = [pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)]
  return Wakeup.wait(for: &waits, timeout: milliseconds)
}
