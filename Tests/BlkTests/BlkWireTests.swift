import BlkIf
import CRingOracle
import Testing
import XenRing

/// B1: the bytes of io/blkif.h's structures in every layout, as a C compiler makes them.
struct BlkWireTests {
  private static let layouts: [BlockOracleLayout] =
    [BlockOracleLayoutX86_32, BlockOracleLayoutX86_64] + (ring_oracle_available() ? [BlockOracleLayoutNative] : [])

  /// What a C compiler writes into a slot.
  private func bytes(_ fill: (UnsafeMutableRawPointer) -> UInt32) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: 128)
    // Safe: the oracle writes no more than 128 bytes.
    let count = unsafe bytes.withUnsafeMutableBytes { unsafe fill($0.baseAddress!) }
    return Array(bytes.prefix(Int(count)))
  }

  /// What we write into one.
  private func bytes<Entry: BitwiseCopyable>(of entry: Entry) -> [UInt8] {
    let pages = PrivatePages(pageCount: 1)
    var ring = FrontRing<Entry, Entry>(initialising: pages.region())
    ring.put(entry)
    return pages.region().bytes.slice(from: RingLayout.headerByteCount, count: MemoryLayout<Entry>.stride).copied()
  }

  @Test(arguments: layouts)
  func requestHasTheHeadersBytes(layout: BlockOracleLayout) {
    let oracle = unsafe bytes {
      unsafe block_oracle_request(
        layout,
        BlockOracleRequest(
          operation: 1, segment_count: 11, handle: 0x0304, id: 0x0C0D_0E0F_1011_1213,
          sector_number: 0x1415_1617_1819_1A1B, first_gref: 0x1C1D_1E1F), $0)
    }
    var request = BlkIfRequest(
      operation: 1, segmentCount: 11, handle: 0x0304, id: 0x0C0D_0E0F_1011_1213, sectorNumber: 0x1415_1617_1819_1A1B)
    for index in 0..<11 {
      request.segments[index] = BlkIfSegment(
        gref: GrantReference(rawValue: 0x1C1D_1E1F + UInt32(index)), firstSector: UInt8(index % 8), lastSector: 7)
    }
    let is32 = layout == BlockOracleLayoutX86_32
    #expect((is32 ? bytes(of: BlkIfX86_32Request(request)) : bytes(of: request)) == oracle)
    #expect(oracle.count == (is32 ? 108 : 112))
    // And back: what leaves a ring is what was put into it.
    #expect(bytes(of: BlkIfX86_32Request(request).native) == bytes(of: request))
  }

  @Test(arguments: layouts)
  func indirectRequestHasTheHeadersBytes(layout: BlockOracleLayout) {
    let oracle = unsafe bytes {
      unsafe block_oracle_indirect(
        layout,
        BlockOracleIndirect(
          indirect_operation: 1, segment_count: 0x0203, handle: 0x0405, id: 0x0C0D_0E0F_1011_1213,
          sector_number: 0x1415_1617_1819_1A1B, first_gref: 0x1C1D_1E1F), $0)
    }
    var references = InlineArray<8, UInt32>(repeating: 0)
    for index in 0..<8 { references[index] = 0x1C1D_1E1F + UInt32(index) }
    let indirect = BlkIfIndirectRequest(
      indirectOperation: 1, segmentCount: 0x0203, handle: 0x0405, id: 0x0C0D_0E0F_1011_1213,
      sectorNumber: 0x1415_1617_1819_1A1B, references: references)
    check(BlkIfRequest(indirect), oracle, layout)
    // And back, as a backend reads it.
    let read = BlkIfX86_32Request(BlkIfRequest(indirect)).native.indirect
    #expect(read.operation == BlkIf.Operation.indirect && read.indirectOperation == 1 && read.segmentCount == 0x0203)
    #expect(read.handle == 0x0405 && read.id == indirect.id && read.sectorNumber == indirect.sectorNumber)
    for index in 0..<8 { #expect(read.references[index] == references[index]) }
  }

  @Test(arguments: layouts)
  func discardHasTheHeadersBytes(layout: BlockOracleLayout) {
    let oracle = unsafe bytes {
      unsafe block_oracle_discard(
        layout,
        BlockOracleDiscard(
          flag: 1, handle: 0x0405, id: 0x0C0D_0E0F_1011_1213, sector_number: 0x1415_1617_1819_1A1B,
          sector_count: 0x2425_2627_2829_2A2B), $0)
    }
    let discard = BlkIfDiscardRequest(
      flag: 1, handle: 0x0405, id: 0x0C0D_0E0F_1011_1213, sectorNumber: 0x1415_1617_1819_1A1B,
      sectorCount: 0x2425_2627_2829_2A2B)
    check(BlkIfRequest(discard), oracle, layout)
    let read = BlkIfX86_32Request(BlkIfRequest(discard)).native.discard
    #expect(read.operation == BlkIf.Operation.discard && read.flag == 1 && read.handle == 0x0405)
    #expect(read.id == discard.id && read.sectorNumber == discard.sectorNumber)
    #expect(read.sectorCount == discard.sectorCount)
  }

  private func check(_ request: BlkIfRequest, _ oracle: [UInt8], _ layout: BlockOracleLayout) {
    let is32 = layout == BlockOracleLayoutX86_32
    #expect((is32 ? bytes(of: BlkIfX86_32Request(request)) : bytes(of: request)) == oracle)
    #expect(oracle.count == (is32 ? 108 : 112))
  }

  @Test(arguments: layouts)
  func responseHasTheHeadersBytes(layout: BlockOracleLayout) {
    let oracle = unsafe bytes {
      unsafe block_oracle_response(
        layout, BlockOracleResponse(id: 0x0102_0304_0506_0708, operation: 9, status: -2), $0)
    }
    let response = BlkIfResponse(id: 0x0102_0304_0506_0708, operation: 9, status: -2)
    let is32 = layout == BlockOracleLayoutX86_32
    #expect((is32 ? bytes(of: BlkIfX86_32Response(response)) : bytes(of: response)) == oracle)
    #expect(oracle.count == (is32 ? 12 : 16))
    #expect(bytes(of: BlkIfX86_32Response(response).native) == bytes(of: response))
  }

  /// Written down by hand, so that not both sides are wrong in the same way.
  @Test func fieldsStandWhereTheHeaderPutsThem() {
    let request = BlkIfRequest(
      operation: 1, segmentCount: 2, handle: 0x0304, id: 0x0C0D_0E0F_1011_1213, sectorNumber: 0x1415_1617_1819_1A1B)
    let numbers: [UInt8] = [
      0x13, 0x12, 0x11, 0x10, 0x0F, 0x0E, 0x0D, 0x0C, 0x1B, 0x1A, 0x19, 0x18, 0x17, 0x16, 0x15, 0x14,
    ]
    #expect(Array(bytes(of: request).prefix(24)) == [1, 2, 4, 3, 0, 0, 0, 0] + numbers)
    #expect(Array(bytes(of: BlkIfX86_32Request(request)).prefix(20)) == [1, 2, 4, 3] + numbers)
  }

  @Test func ringOfOnePageHasThirtyTwoSlots() {
    let wide = RingLayout.stride(BlkIfRequest.self, BlkIfResponse.self)
    let narrow = RingLayout.stride(BlkIfX86_32Request.self, BlkIfX86_32Response.self)
    #expect(wide == 112 && RingLayout.entryCount(byteCount: 4096, stride: wide) == 32)
    #expect(narrow == 108 && RingLayout.entryCount(byteCount: 4096, stride: narrow) == 32)
  }
}
