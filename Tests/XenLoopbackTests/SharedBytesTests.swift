import Testing
import XenPlatform

/// Payload that a peer may be changing: it goes in and out by copies, and only within its bounds.
struct SharedBytesTests {
  private let pages = PrivatePages(pageCount: 1)

  @Test func bytesGoInAndOutByCopies() {
    let slice = pages.bytes.slice(from: 4090, count: 6)
    let bytes: [UInt8] = [1, 2, 3, 4, 5, 6]
    slice.copy(from: bytes.span)
    var copy = [UInt8](repeating: 9, count: 8)
    var span = copy.mutableSpan
    slice.copy(to: &span)
    #expect(copy == [1, 2, 3, 4, 5, 6, 9, 9])
    pages.bytes.copy(from: slice)
    slice.zero()
    #expect(pages.bytes.slice(from: 0, count: 6).copied() == bytes)
    #expect(slice.copied() == [0, 0, 0, 0, 0, 0])
  }

  @Test func sliceOutsideItsBytesTraps() async {
    await #expect(processExitsWith: .failure) { _ = PrivatePages(pageCount: 1).bytes.slice(from: 4090, count: 7) }
    await #expect(processExitsWith: .failure) { _ = PrivatePages(pageCount: 1).bytes.slice(from: -1, count: 1) }
    await #expect(processExitsWith: .failure) { _ = PrivatePages(pageCount: 1).bytes.slice(from: .max, count: 1) }
  }
}
