import BlkIf
import XenRing

/// The one ring of a disk.
///
/// A class, so that completions are handed over outside of every access to its state: whoever is told that a request has
/// ended may make the next one at once.
final class BlkFrontQueue {
  private var work: BlkFrontWork
  private var isPolling = false
  /// Readable when a response has come.
  let descriptor: CInt

  init(_ work: consuming BlkFrontWork) {
    descriptor = work.channel.descriptor
    self.work = work
  }

  func put(
    operation: UInt8, sector: UInt64, byteCount: Int, tag: UInt64, payload: Span<UInt8>?
  ) throws(BlkFrontError) {
    try work.put(operation: operation, sector: sector, byteCount: byteCount, tag: tag, payload: payload)
  }

  func push() { work.push() }

  /// Hands over what the backend has answered.
  ///
  /// - Throws: when the backend broke the protocol; nothing is handed over then.
  func poll(_ body: (BlkFrontCompletion) -> Void) throws(DeviceError) -> Int {
    precondition(!isPolling, "a completion's receiver does not poll")
    isPolling = true
    defer { isPolling = false }
    try work.takeResponses()
    let count = work.answered.count
    for index in 0..<count {
      let slot = work.answered[index]
      body(work.completion(slot))
      work.finish(slot)
    }
    work.forgetAnswered()
    return count
  }

  var inFlightCount: Int { work.inFlightCount }
  var unansweredTags: [UInt64] { work.unansweredTags() }
  var statistics: RingStatistics { work.statistics }
}
