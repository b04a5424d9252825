import Foundation
import TestSupport
import Testing

/// Whole systems by their seeds: whatever happens, no write that was acknowledged is lost, no frame is altered or arrives twice,
/// no grant is leaked, and every device ends connected, closed, or waiting for what its report names.
///
/// Run by `make storm`: some seeds (38 and 41 among the first hundred) end with a device that waits, and are not explained yet.
@Suite(
  .enabled(
    if: ProcessInfo.processInfo.environment["SWIFT_XEN_SEEDS"] != nil
      || ProcessInfo.processInfo.environment["SWIFT_XEN_SEED"] != nil))
struct SimulationTests {
  /// How many seeds; `SWIFT_XEN_SEEDS` asks for others, as many as there is time for.
  static let count: UInt64 = {
    let text = ProcessInfo.processInfo.environment["SWIFT_XEN_SEEDS"]
    guard let text else { return 100 }
    guard let count = UInt64(text), count > 0 else { fatalError("SWIFT_XEN_SEEDS is no number: \(text)") }
    return count
  }()

  @Test(arguments: seeds(1...count, of: SimulationTests.self)) func wholeSystemKeepsItsPromises(seed: Seed) throws {
    let xen = try SimulatedXen(seed: seed)
    func story() -> String { "\(seed.command)\nafter \(xen.story.joined(separator: ", "))" }
    try xen.happen(24)
    #expect(xen.fault == nil, "\(xen.fault ?? ""): \(story())")
    let unexplained = xen.settle()
    #expect(unexplained == nil, "\(unexplained ?? ""): \(story())")
    let standing = try xen.mend()
    try #require(standing == nil, "\(standing ?? ""): \(story())")
    #expect(try xen.readAll(), "\(story())")
    #expect(xen.fault == nil, "\(xen.fault ?? ""): \(story())")
    #expect(xen.acknowledgedCount > 0 && xen.frameCount > 0, "\(story())")
    let left = try xen.end()
    #expect(left == nil, "\(left ?? ""): \(story())")
  }
}
