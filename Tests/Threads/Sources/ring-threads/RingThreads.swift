import Foundation
import Synchronization
import XenPlatform
import XenRing

/// Both ends of a ring in two threads, for Thread Sanitizer; with `barriers`, the races that it does not know.
///
/// They share one mapping: the sanitizer knows memory by its address, and would see nothing through two. And they share
/// nothing else that orders memory: an event is a relaxed flag, since a semaphore would order all that the ring should.
@main struct RingThreads {
  static func main() {
    let arguments = CommandLine.arguments.dropFirst()
    if arguments.first == "barriers" { exit(barriers()) }
    let count = arguments.first.flatMap { UInt32($0) } ?? 20_000
    slots(count)
    bytes(Int(count) * 16)
    print("\(count) requests and responses, and \(count * 16) bytes each way")
  }

  /// 0: the rings lost no event where processors were seen to reorder; 3: they did; 4: processors were not seen to.
  static func barriers() -> Int32 {
    let found = Barriers.run(enough: 100_000, seconds: 60)
    let (requests, responses) = (found.requestsLost, found.responsesLost)
    print(
      "\(found.rounds) rounds, lost: \(requests) requests, \(responses) responses, \(found.bareLost) without a ring")
    return requests + responses > 0 ? 3 : found.bareLost < 1_000 ? 4 : 0
  }

  /// Runs both at once, to their ends.
  static func together(_ first: @escaping @Sendable () -> Void, _ second: @escaping @Sendable () -> Void) {
    let finished = DispatchSemaphore(value: 0)
    for body in [first, second] {
      let thread = Thread {
        body()
        finished.signal()
      }
      thread.start()
    }
    for _ in 0..<2 {
      guard finished.wait(timeout: .now() + 300) == .success else { fatalError("an end was never woken") }
    }
  }

  struct Request: BitwiseCopyable { var number: UInt32, words: InlineArray<27, UInt32> }
  struct Response: BitwiseCopyable { var number: UInt32, words: InlineArray<3, UInt32> }

  static func slots(_ count: UInt32) {
    let pages = PrivatePages(pageCount: 1)
    let (toBack, toFront) = (Event(), Event())
    let start = RingIndex(rawValue: .max - 1000)
    // Before there is a second thread: the front end's first writes come before everything.
    let front = Mutex(Optional(FrontRing<Request, Response>(initialising: pages.region(), at: start)))
    together {
      var ring = front.withLock { $0.take()! }
      var (put, taken): (UInt32, UInt32) = (0, 0)
      while taken < count {
        while put < count, ring.freeRequestCount > 0 {
          ring.put(Request(number: put, words: InlineArray(repeating: put)))
          put += 1
          if put % 5 == 0, ring.pushAndCheckNotify() { toBack.send() }
        }
        if ring.hasUnpushed, ring.pushAndCheckNotify() { toBack.send() }
        do {
          _ = try ring.available()
          while let response = ring.next() {
            guard response.number == taken, response.words[2] == ~taken else { fatalError("response \(taken) is torn") }
            taken += 1
          }
          // With nothing unanswered nothing would come.
          if taken < put, try !ring.finalCheck() { toFront.wait() }
        } catch { fatalError("\(error)") }
      }
    } _: {
      var ring = BackRing<Request, Response>(attaching: pages.region(), at: start)
      var taken: UInt32 = 0
      while taken < count {
        do {
          _ = try ring.available()
          while let request = ring.next() {
            guard request.number == taken, request.words[26] == taken else { fatalError("request \(taken) is torn") }
            ring.put(Response(number: taken, words: InlineArray(repeating: ~taken)))
            taken += 1
          }
          if ring.hasUnpushed, ring.pushAndCheckNotify() { toFront.send() }
          if taken < count, try !ring.finalCheck() { toBack.wait() }
        } catch { fatalError("\(error)") }
      }
    }
  }

  static func bytes(_ count: Int) {
    let (interface, data) = (PrivatePages(pageCount: 1), PrivatePages(pageCount: 1))
    let (toBack, toFront) = (Event(), Event())
    let start = RingIndex(rawValue: .max - 1000)
    let front = Mutex(
      Optional(
        ByteRing(
          initialising: interface.region(), data: data.region(), references: [GrantReference(rawValue: 1)], at: start)))
    together {
      Self.exchange(front.withLock { $0.take()! }, count, mine: toFront, other: toBack)
    } _: {
      let back = ByteRing(attaching: interface.region(), data: data.region(), outIndex: start, inIndex: start)
      Self.exchange(back, count, mine: toBack, other: toFront)
    }
  }

  /// What each end does: writes `count` bytes and reads as many.
  static func exchange(_ ring: consuming ByteRing, _ count: Int, mine: Event, other: Event) {
    let length = 251
    let stream = (0..<2 * length).map { UInt8($0 % length) }
    var buffer = [UInt8](repeating: 0, count: length)
    var (written, read) = (0, 0)
    while written < count || read < count {
      do {
        var idle = true
        if written < count, try ring.writableCount() > 0 {
          let from = written % length
          written += ring.write(stream.span.extracting(from..<from + min(length, count - written)))
          idle = false
        }
        if try ring.readableCount() > 0 {
          var span = buffer.mutableSpan
          let got = ring.read(into: &span)
          for place in 0..<got where buffer[place] != UInt8((read + place) % length) { fatalError("bytes are torn") }
          read += got
          idle = false
        }
        if ring.push() { other.send() }
        // Taken before the next look: what is sent after that look is still there.
        if idle { mine.wait() }
      } catch { fatalError("\(error)") }
    }
  }
}

/// An event channel that orders no memory.
final class Event: Sendable {
  private let pending = Atomic(false)

  func send() { pending.store(true, ordering: .relaxed) }

  func wait() { while !pending.exchange(false, ordering: .relaxed) { sched_yield() } }
}
