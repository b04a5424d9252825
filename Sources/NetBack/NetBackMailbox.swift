import NetIf
import Synchronization

/// A bounded line of frames that one queue's thread hands over to another's: one lock a turn, on either side.
///
/// Its frames are bounded as those that wait are, in number, bytes and time, since it changes places with that line.
final class NetBackMailbox: Sendable {
  private let frames: Mutex<FrameQueue>
  private let isFilled = Atomic(false)
  private let wakesReceiver: Wakeup

  /// - Throws: when the process has no file descriptor left.
  init(for takes: NetGuestAgreement) throws(ResourceError) {
    wakesReceiver = try Wakeup()
    frames = Mutex(NetBackReceive.makeLine(for: takes))
  }

  /// Readable when frames are there.
  var descriptor: CInt { wakesReceiver.descriptor }

  /// The sender's: copies those of a line's frames that belong to `queue`. What finds no room is dropped, and counted here.
  ///
  /// - Parameter queues: the queue of each frame.
  func put(_ line: borrowing FrameQueue, for queue: Int, of queues: borrowing [UInt8], now: Uptime) {
    let wakes = frames.withLock { frames in
      let wasEmpty = frames.isEmpty
      frames.now = now
      for index in 0..<line.count where Int(queues[index]) == queue { frames.put(line[index]) }
      if !frames.isEmpty { isFilled.store(true, ordering: .relaxed) }
      return wasEmpty && !frames.isEmpty
    }
    if wakes { wakesReceiver.signal() }
  }

  /// Whether frames are there, as far as is known.
  var hasFrames: Bool { isFilled.load(ordering: .relaxed) }

  /// The receiver's: all frames change places with its own line, which is empty.
  func take(_ line: inout FrameQueue) {
    guard isFilled.load(ordering: .relaxed) else { return }
    // First: whoever fills it again from here on signals again.
    wakesReceiver.clear()
    frames.withLock { frames in
      swap(&frames, &line)
      isFilled.store(false, ordering: .relaxed)
    }
  }

  /// What was dropped here, or lies here still. The line that changes places with this one takes its own count with it.
  var dropCount: UInt64 { frames.withLock { $0.dropCount + UInt64($0.count) } }
}
