import CRingOracle
import TestSupport
import Testing
import XenPlatform
import XenRing

/// R13, R15: beside the C functions, operation by operation, over random sequences. Each run has a seed of its own, which a
/// failure names.
struct ByteLockStepTests {
  @Test(
    .enabled(
      if: byte_oracle_available(),
      "libxen-dev is not installed, so there are no C functions to compare with; install it, then run swift package clean"
    ),
    arguments: [0, 1, 2, 5])
  func byteRingsAndResultsEqualThoseOfTheCFunctions(order: Int) throws {
    #expect(ByteRingLayout.byteCount(order: order) == Int(byte_oracle_ring_size(UInt32(order))))
    let seed = Seed(Seed.given ?? UInt64.random(in: .min ... .max), suite: "ByteLockStepTests")
    var run = ByteLockStep(order: order, seed: seed)
    try run.perform(20_000)
  }
}

/// A pair of rings of ours and one of the C functions', to which everything happens twice.
private struct ByteLockStep: ~Copyable {
  var pair: BytePair
  let oracle: ByteOracle
  let start: UInt32
  let seed: Seed
  var generator: SeededGenerator

  init(order: Int, seed: Seed) {
    self.seed = seed
    generator = SeededGenerator(seed)
    // The indices wrap early in each run.
    let start = UInt32.max - UInt32.random(in: 0..<UInt32(ByteRingLayout.byteCount(order: order)), using: &generator)
    self.start = start
    pair = BytePair(order: order, at: start)
    let references = BytePair.references(order: order).map(\.rawValue)
    // Safe: as many references as the order says.
    oracle = unsafe references.withUnsafeBufferPointer {
      unsafe byte_oracle_create(UInt32(order), start, $0.baseAddress)
    }
  }

  deinit { byte_oracle_destroy(oracle) }

  mutating func perform(_ count: Int) throws {
    var reached: Set<ByteStep.Reached> = []
    for number in 1...count {
      let end = Bool.random(using: &generator) ? ByteOracleEndFront : ByteOracleEndBack
      let step = ByteStep(
        operation: ByteStep.Operation.allCases.randomElement(using: &generator)!, end: end, number: number,
        limit: Int.random(in: 0...pair.front.byteCount, using: &generator), oracle: oracle, seed: seed)
      reached.insert(
        end == ByteOracleEndFront ? try step.perform(on: &pair.front) : try step.perform(on: &pair.back))
      // Safe: the C side compares as many bytes as both pairs have.
      let equal = unsafe byte_oracle_pages_equal(oracle, pair.interface.bytes.baseAddress, pair.data.bytes.baseAddress)
      try step.agree(equal, true, "the pages differ")
    }
    #expect(reached == [.nothing, .full, .drained], "a run that never fills and never drains a ring compares little")
    let produced = pair[.outProducer]
    #expect(produced < start, "the indices never wrapped")
  }
}

/// One operation of one end, on ours and on the C functions' rings.
private struct ByteStep {
  enum Operation: CaseIterable { case read, write, push }
  enum Reached { case nothing, full, drained }

  let operation: Operation
  let end: ByteOracleEnd
  let number: Int
  /// How many bytes a read or write is asked for.
  let limit: Int
  let oracle: ByteOracle
  let seed: Seed

  func perform(on ring: inout ByteRing) throws -> Reached {
    switch operation {
    case .read:
      let found = try ring.readableCount()
      try agree(found, Int(byte_oracle_readable(oracle, end)), "readable counts differ")
      let ours = ring.read(upTo: limit)
      try agree(ours.count, min(found, limit), "a read is short")
      var theirs = [UInt8](repeating: 0, count: ours.count)
      // Safe: the C side writes as many bytes as it is told.
      unsafe theirs.withUnsafeMutableBytes { unsafe byte_oracle_read(oracle, end, $0.baseAddress, UInt32($0.count)) }
      try agree(ours == theirs, true, "the bytes differ")
      return found > 0 && ours.count == found ? .drained : .nothing
    case .write:
      let free = try ring.writableCount()
      try agree(free, Int(byte_oracle_writable(oracle, end)), "writable counts differ")
      let bytes = pattern(limit, seed: number)
      let written = ring.write(bytes.span)
      try agree(written, min(free, limit), "a write is short")
      // Safe: the C side reads as many bytes as it is told.
      unsafe bytes.withUnsafeBytes { unsafe byte_oracle_write(oracle, end, $0.baseAddress, UInt32(written)) }
      return written == free ? .full : .nothing
    case .push:
      _ = ring.push()
      byte_oracle_push(oracle, end)
      return .nothing
    }
  }

  func agree<Value: Equatable>(_ ours: Value, _ theirs: Value, _ what: String) throws {
    guard ours == theirs else {
      throw Divergence(what: "\(what) (\(ours), \(theirs))", operation: "\(operation)", step: number, seed: seed)
    }
  }
}
