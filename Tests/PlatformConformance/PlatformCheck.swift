import Glibc
import XenPlatform

/// One thing that every platform does: what a driver may rely on, whichever it is given.
///
/// A check talks to its own domain only, as both ends, so that it needs no second one. It leaves nothing behind when it
/// holds.
public struct PlatformCheck: Sendable, CustomStringConvertible {
  /// What holds, as a name.
  public let name: String
  private let body: @Sendable (any Platform) throws -> Void

  init(_ name: String, _ body: @escaping @Sendable (any Platform) throws -> Void) {
    self.name = name
    self.body = body
  }

  public var description: String { name }

  /// - Throws: ``Nonconformity``, or whatever error the platform gave where none was due.
  public func run(on platform: any Platform) throws { try body(platform) }

  /// All of them.
  public static let all = store + grantChecks + eventChannelChecks

  /// Those of xenstore alone, for a store that comes without grants and event channels.
  public static let store = storeChecks
}

/// What a platform should have done and did not.
public struct Nonconformity: Error, CustomStringConvertible {
  public let description: String
}

func expect(_ condition: Bool, _ claim: @autoclosure () -> String) throws {
  if !condition { throw Nonconformity(description: "does not hold: \(claim())") }
}

func expect<Value: Equatable>(_ value: Value, is expected: Value, _ what: @autoclosure () -> String) throws {
  if value != expected { throw Nonconformity(description: "\(what()) is \(value), not \(expected)") }
}

/// Whether `descriptor` is readable, or becomes so within this many milliseconds.
func isReadable(_ descriptor: CInt, within milliseconds: CInt) -> Bool {
  var waits = [pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)]
  return Wakeup.wait(for: &waits, timeout: milliseconds)
}

/// As long as anything may take that has to come, on a slow machine in emulation.
let patience: CInt = 60_000
/// Long enough for something that must not come to come.
let silence: CInt = 50
