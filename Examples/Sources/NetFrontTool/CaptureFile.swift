import NetFront
import Pcap
import SystemPackage

/// Writes what a card receives into a capture file, and answers nothing.
public final class CaptureFile: CardEnd {
  private let path: String
  private var writer: PcapWriter
  private let clock: () -> UInt64
  private var failure: PcapError?
  public private(set) var frameCount: UInt64 = 0

  /// Makes the file, in place of one that is there.
  ///
  /// - Parameter clock: nanoseconds since the beginning of 1970, UTC.
  public init(path: String, clock: @escaping () -> UInt64) throws(PcapError) {
    self.path = path
    self.clock = clock
    writer = try PcapWriter(path: FilePath(path))
    // A reader that is there first finds a file of this kind.
    try writer.flush()
  }

  public func connected(_ card: NetFrontDevice) throws(CardEndError) {}

  public func take(_ frame: borrowing NetFrontFrame, _ card: NetFrontDevice, now: Uptime) {
    guard failure == nil else { return }
    let bytes = frame.copied()
    do throws(PcapError) {
      try writer.write(bytes.span, nanoseconds: clock())
      frameCount += 1
    } catch { failure = error }
  }

  public func poll(_ card: NetFrontDevice, now: Uptime) throws(CardEndError) -> PollOutcome {
    if let failure { throw CardEndError("\(failure)") }
    return .idle
  }

  public func flush() throws(CardEndError) {
    do throws(PcapError) { try writer.flush() } catch { throw CardEndError("\(error)") }
  }

  public var summary: String { "\(path): \(frameCount) frames" }
}
