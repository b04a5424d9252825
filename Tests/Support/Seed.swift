import Foundation
import Testing
import XenLoopback

/// What a random run is made from. A failure prints it as its test's argument, with the command that repeats the run.
public struct Seed: Sendable, ExpressibleByIntegerLiteral, CustomTestStringConvertible {
  public let value: UInt64
  /// The tests that it belongs to, as `--filter` takes them.
  private let suite: String?

  public init(_ value: UInt64, suite: String? = nil) { (self.value, self.suite) = (value, suite) }

  public init(integerLiteral value: UInt64) { self.init(value) }

  /// A part of the seed's own, from zero to below `bound`.
  public func modulo(_ bound: UInt64) -> Int { Int(value % bound) }

  public var command: String {
    "\(Self.variable)=\(value) swift test --disable-xctest" + (suite.map { " --filter \($0)" } ?? "")
  }

  public var testDescription: String { "\(value), which `\(command)` repeats" }

  private static let variable = "SWIFT_XEN_SEED"

  /// The one that the environment asks for in place of all others.
  public static let given: UInt64? = ProcessInfo.processInfo.environment[variable].map { text in
    guard let value = UInt64(text) else { fatalError("\(variable) is not a number from 0 to \(UInt64.max): \(text)") }
    return value
  }
}

/// A seeded test's arguments: all of the range, or the one seed that the environment asks for.
public func seeds(_ range: ClosedRange<UInt64>, of suite: Any.Type) -> [Seed] {
  (Seed.given.map { [$0] } ?? Array(range)).map { Seed($0, suite: "\(suite)") }
}

extension Scheduler {
  public convenience init(seed: Seed, looks: Bool = false) { self.init(seed: seed.value, looks: looks) }
}
