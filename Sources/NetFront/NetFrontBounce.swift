import NetIf

/// Memory of ours for one frame: what it holds no backend changes any more.
final class NetFrontBounce {
  private let pages = PrivatePages(
    pageCount: NetIf.pageCount(of: NetIf.maxFrameByteCount + Int(NetExtraInfo.maxHeadroomByteCount)))

  /// Copies the frame out, once, and hands the copy over.
  func handOver(_ frame: borrowing NetFrontFrame, _ body: (borrowing NetFrontFrame) -> Void) {
    let bytes = pages.bytes.slice(from: frame.headroomByteCount, count: frame.byteCount)
    frame.copy(to: bytes)
    body(NetFrontFrame(copyOf: frame, in: bytes))
  }
}
