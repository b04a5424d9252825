import BlkIf
import Testing
import XenRing

/// The bytes of io/blkif.h's structures on x86-64, written down by hand from the header.
struct BlkWireTests {
  private func bytes<Entry: BitwiseCopyable>(_ entry: Entry) -> [UInt8] {
    let pages = PrivatePages(pageCount: 1)
    var ring = FrontRing<Entry, Entry>(initialising: pages.region())
    ring.put(entry)
    return pages.region().bytes.slice(from: RingLayout.headerByteCount, count: MemoryLayout<Entry>.stride).copied()
  }

  @Test func requestHasTheHeadersBytes() {
    var request = BlkIfRequest(
      operation: 1, segmentCount: 2, handle: 0x0304, id: 0x0C0D_0E0F_1011_1213, sectorNumber: 0x1415_1617_1819_1A1B)
    request.segments[0] = BlkIfSegment(gref: GrantReference(rawValue: 0x1C1D_1E1F), firstSector: 0x20, lastSector: 0x21)
    request.segments[10] = BlkIfSegment(
      gref: GrantReference(rawValue: 0x2425_2627), firstSector: 0x28, lastSector: 0x29)
    let expected: [UInt8] =
      [1, 2, 0x04, 0x03, 0, 0, 0, 0]
      + [0x13, 0x12, 0x11, 0x10, 0x0F, 0x0E, 0x0D, 0x0C, 0x1B, 0x1A, 0x19, 0x18, 0x17, 0x16, 0x15, 0x14]
      + [0x1F, 0x1E, 0x1D, 0x1C, 0x20, 0x21, 0, 0] + [UInt8](repeating: 0, count: 72)
      + [0x27, 0x26, 0x25, 0x24, 0x28, 0x29, 0, 0]
    #expect(bytes(request) == expected)
    #expect(expected.count == 112)
  }

  @Test func responseHasTheHeadersBytes() {
    let response = BlkIfResponse(id: 0x0102_0304_0506_0708, operation: 9, status: -2)
    #expect(bytes(response) == [8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0xFE, 0xFF, 0, 0, 0, 0])
  }

  @Test func ringOfOnePageHasThirtyTwoSlots() {
    let stride = RingLayout.stride(BlkIfRequest.self, BlkIfResponse.self)
    #expect(stride == 112 && RingLayout.entryCount(byteCount: 4096, stride: stride) == 32)
  }
}
