import BlkBack
import TestSupport
import Testing
import XenLoopback

/// Every field of every kind of request at its limits and beyond them: what the answer is. Grants and segment counts of
/// indirect requests are in ``BlkBackIndirectTests``.
struct BlkBackRequestTableTests {
  /// A disk of 64 sectors of 512 bytes that can discard, and a request to it.
  struct Line: Sendable, CustomTestStringConvertible {
    let name: String
    let status: Int16
    let operation: UInt8
    let slot: BlkIfRequest

    var testDescription: String { name }
  }

  private static func direct(
    _ operation: UInt8, count: UInt8 = 1, sector: UInt64 = 0, first: UInt8 = 0, last: UInt8 = 7
  ) -> BlkIfRequest {
    var slot = BlkIfRequest(operation: operation, segmentCount: count, id: 1, sectorNumber: sector)
    for index in 0..<11 {
      slot.segments[index] = BlkIfSegment(
        gref: GrantReference(rawValue: UInt32(index)), firstSector: first, lastSector: last)
    }
    return slot
  }

  private static func discard(flag: UInt8 = 0, sector: UInt64, count: UInt64) -> BlkIfRequest {
    BlkIfRequest(BlkIfDiscardRequest(flag: flag, id: 1, sectorNumber: sector, sectorCount: count))
  }

  private static func line(_ name: String, _ status: Int16, _ slot: BlkIfRequest) -> Line {
    Line(name: name, status: status, operation: slot.operation, slot: slot)
  }

  private static let okay = BlkIf.Status.okay
  private static let error = BlkIf.Status.error
  private static let notSupported = BlkIf.Status.notSupported

  static let operations: [Line] = (0...UInt8.max).map { operation in
    // The id and what follows are zeros: an indirect request asks for reads of nothing, a discard for nothing.
    let status =
      switch operation {
      case BlkIf.Operation.flushDiskCache, BlkIf.Operation.writeBarrier: okay
      case BlkIf.Operation.read, BlkIf.Operation.write, BlkIf.Operation.discard, BlkIf.Operation.indirect: error
      default: notSupported
      }
    let slot = BlkIfRequest(operation: operation, id: 1)
    return Line(
      name: "operation \(operation) with nothing", status: status,
      operation: operation == BlkIf.Operation.indirect ? BlkIf.Operation.read : operation, slot: slot)
  }

  static let table: [Line] = {
    var lines: [Line] = []
    for operation in [BlkIf.Operation.read, BlkIf.Operation.write, BlkIf.Operation.writeBarrier] {
      for (count, status) in [(1, okay), (8, okay), (12, error), (255, error)] as [(UInt8, Int16)] {
        lines.append(line("\(operation): \(count) segments", status, direct(operation, count: count)))
      }
      for (first, last, status) in [
        (0, 0, okay), (7, 7, okay), (0, 7, okay), (1, 0, error), (7, 8, error), (8, 8, error), (0, 255, error),
        (255, 255, error), (255, 0, error),
      ] as [(UInt8, UInt8, Int16)] {
        lines.append(
          line("\(operation): sectors \(first) to \(last)", status, direct(operation, first: first, last: last)))
      }
      for (sector, status) in [
        (56, okay), (57, error), (63, error), (64, error), (.max, error), (.max - 7, error), (1 << 63, error),
        (1 << 55, error), ((1 << 55) + 1, error),
      ] as [(UInt64, Int16)] {
        lines.append(line("\(operation): eight sectors from \(sector)", status, direct(operation, sector: sector)))
      }
    }
    // A flush with segments is a barrier by another name; one without does not look at the sector.
    lines.append(line("flush with a segment", okay, direct(BlkIf.Operation.flushDiskCache)))
    lines.append(line("flush with 12 segments", error, direct(BlkIf.Operation.flushDiskCache, count: 12)))
    lines.append(line("flush past the end", error, direct(BlkIf.Operation.flushDiskCache, sector: 64)))
    for operation in [BlkIf.Operation.flushDiskCache, BlkIf.Operation.writeBarrier] {
      lines.append(line("\(operation): empty, anywhere", okay, direct(operation, count: 0, sector: .max)))
    }
    for (sector, count, status) in [
      (0, 1, okay), (0, 64, okay), (63, 1, okay), (0, 0, error), (64, 0, error), (0, 65, error), (63, 2, error),
      (64, 1, error), (.max, 1, error), (1, .max, error), (.max, .max, error), (1 << 63, 1 << 63, error),
      (32, .max - 31, error), (32, 1 << 32, error),
    ] as [(UInt64, UInt64, Int16)] {
      lines.append(line("discard of \(count) from \(sector)", status, discard(sector: sector, count: count)))
      lines.append(
        line("secure discard of \(count) from \(sector)", status, discard(flag: 1, sector: sector, count: count)))
    }
    // Bits of the flag that the header does not know.
    lines.append(line("discard with other flags", okay, discard(flag: 0xFE, sector: 0, count: 8)))
    return lines
  }()

  /// Between two good requests, which it does not touch.
  private func expect(
    _ line: Line, _ geometry: BlockGeometry? = nil, isReadOnly: Bool = false, status: Int16? = nil
  ) throws {
    let frontend = RawBlkFrontend()
    let disk = geometry.map { ModelDisk($0) } ?? ModelDisk(sectorCount: 64)
    let pair = try BlkPair(isReadOnly: isReadOnly, options: BlkBackOptions(), frontend: frontend) { _ in disk }
    try pair.connect()
    var slot = line.slot
    if slot.operation != BlkIf.Operation.discard, slot.operation != BlkIf.Operation.indirect {
      for index in 0..<11 where slot.segmentCount > 0 {
        slot.segments[index].gref = frontend.references[index].rawValue
      }
    }
    frontend.put(frontend.direct(BlkIf.Operation.read, [(12, 0, 7)], id: 10))
    frontend.put(slot)
    frontend.put(frontend.direct(BlkIf.Operation.read, [(13, 0, 7)], id: 11))
    let answers = try pair.answers(frontend, 3)
    #expect(answers[10]?.status == BlkIf.Status.okay && answers[11]?.status == BlkIf.Status.okay)
    #expect(answers[1]?.status == status ?? line.status)
    #expect(answers[1]?.operation == line.operation)
    #expect(pair.backBus.isConnected && pair.frontBus.isConnected)
  }

  @Test(arguments: table) func eachRequestHasItsAnswer(line: Line) throws { try expect(line) }

  @Test func eachOperationHasItsAnswer() throws { for line in Self.operations { try expect(line) } }

  /// Whatever else is wrong with it. What only reads has the answer that it has elsewhere.
  @Test func readOnlyDiskIsNotWritten() throws {
    let geometry = BlockGeometry(sectorCount: 64, isReadOnly: true, discard: DiscardLimits(granularity: 512))
    for line in Self.table {
      let status =
        switch line.slot.operation {
        case BlkIf.Operation.read: line.status
        case BlkIf.Operation.discard: BlkIf.Status.notSupported
        case BlkIf.Operation.flushDiskCache where line.slot.segmentCount == 0: BlkIf.Status.okay
        default: BlkIf.Status.error
        }
      try expect(line, geometry, status: status)
      try expect(line, isReadOnly: true, status: status)
    }
  }

  @Test func diskThatCannotDiscardSecurelyDoesNotDoItInsecurely() throws {
    let geometry = BlockGeometry(sectorCount: 64, discard: DiscardLimits(granularity: 4096))
    for line in Self.table where line.slot.operation == BlkIf.Operation.discard {
      let isSecure = line.slot.discard.flag & BlkIf.discardSecure != 0
      try expect(line, geometry, status: isSecure ? BlkIf.Status.notSupported : line.status)
    }
  }

  @Test func diskThatCannotDiscardSaysSo() throws {
    for line in Self.table where line.slot.operation == BlkIf.Operation.discard {
      try expect(line, BlockGeometry(sectorCount: 64), status: BlkIf.Status.notSupported)
    }
  }
}
