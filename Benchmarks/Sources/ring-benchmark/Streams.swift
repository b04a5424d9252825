import CRingTwin
import XenPlatform
import XenRing

/// The pages are the caller's.
private final class Nobody: SharedRegionOwner {
  static let owner = Nobody()
  func endRegion(at baseAddress: UnsafeMutableRawPointer, byteCount: Int) {}
}

extension ring_end {
  /// The ring's pages, which outlive the end's work.
  fileprivate var region: SharedRegion {
    // Safe: whoever runs the end has given it that many bytes.
    unsafe SharedRegion(baseAddress: page, byteCount: Int(byte_count), owner: Nobody.owner)
  }
}

/// The front end's thread: keeps the ring full, a batch a push, and takes what has come back. The same steps as the C twin's.
func streamFront<Shape: BenchmarkedProtocol>(_ shape: Shape.Type, _ end: inout ring_end) throws(RingViolation) {
  var front = FrontRing<Shape.Request, Shape.Response>(attaching: unsafe end.region, at: .zero)
  // Safe: the remainder keeps every place inside the table, and each is initialised.
  let shadows = UnsafeMutablePointer<Shape.Request>.allocate(capacity: shadowCount)
  unsafe shadows.initialize(repeating: Shape.empty, count: shadowCount)
  defer { unsafe shadows.deallocate() }
  let (trips, batch, sleeps) = unsafe (end.trips, end.batch, end.sleeps)
  var sum: UInt64 = 0
  var sent: UInt64 = 0
  var received: UInt64 = 0
  while received < trips {
    var isIdle = true
    while sent < trips, front.freeRequestCount >= batch {
      for _ in 0..<batch {
        let shadow = unsafe shadows + Int(truncatingIfNeeded: sent % UInt64(shadowCount))
        unsafe Shape.fill(&shadow.pointee, sent)
        var request = Shape.empty
        Shape.fill(&request, sent)
        sent &+= 1
        front.put(request)
      }
      if front.pushAndCheckNotify() { unsafe ring_end_wake(&end) }
      isIdle = false
    }
    _ = try front.available()
    while let response = front.next() {
      let id = Shape.id(of: response)
      guard unsafe Shape.id(of: shadows[Int(truncatingIfNeeded: id % UInt64(shadowCount))]) == id else {
        // The back end is ours, below: a fault of the benchmark's.
        fatalError("unknown id")
      }
      sum &+= id
      received &+= 1
      isIdle = false
    }
    guard isIdle else { continue }
    if sleeps, try front.finalCheck() { continue }
    unsafe ring_end_wait(&end)
  }
  unsafe end.sum = sum
}

/// The back end's thread: answers what it finds, and pushes after each batch.
func streamBack<Shape: BenchmarkedProtocol>(_ shape: Shape.Type, _ end: inout ring_end) throws(RingViolation) {
  var back = BackRing<Shape.Request, Shape.Response>(attaching: unsafe end.region)
  let (trips, batch, sleeps) = unsafe (end.trips, end.batch, end.sleeps)
  var sum: UInt64 = 0
  var answered: UInt64 = 0
  while answered < trips {
    if try back.available() == 0 {
      if sleeps, try back.finalCheck() { continue }
      unsafe ring_end_wait(&end)
      continue
    }
    var unpushed: UInt32 = 0
    while let request = back.next() {
      sum &+= Shape.read(request)
      back.put(Shape.answer(request))
      answered &+= 1
      unpushed &+= 1
      if unpushed == batch {
        unpushed = 0
        if back.pushAndCheckNotify() { unsafe ring_end_wake(&end) }
      }
    }
    if unpushed > 0, back.pushAndCheckNotify() { unsafe ring_end_wake(&end) }
  }
  unsafe end.sum = sum
}

/// Both ends of one language and protocol.
@safe struct Stream {
  let front: @convention(c) (UnsafeMutablePointer<ring_end>?) -> Void
  let back: @convention(c) (UnsafeMutablePointer<ring_end>?) -> Void

  // Safe, all: the runner calls with an end that is the thread's own while it runs.
  static let swiftBlock = unsafe Stream(
    front: { end in keeping { () throws(RingViolation) in unsafe try streamFront(BlockShape.self, &end!.pointee) } },
    back: { end in keeping { () throws(RingViolation) in unsafe try streamBack(BlockShape.self, &end!.pointee) } })
  static let swiftTransmit = unsafe Stream(
    front: { end in keeping { () throws(RingViolation) in unsafe try streamFront(TransmitShape.self, &end!.pointee) } },
    back: { end in keeping { () throws(RingViolation) in unsafe try streamBack(TransmitShape.self, &end!.pointee) } })
  static let cBlock = unsafe Stream(front: ring_twin_block_front, back: ring_twin_block_back)
  static let cTransmit = unsafe Stream(front: ring_twin_transmit_front, back: ring_twin_transmit_back)

  /// The front end of this one, and the back end of another of the same protocol.
  func with(backOf other: Stream) -> Stream { unsafe Stream(front: front, back: other.back) }

  /// What a run came to.
  struct Figures {
    let nanosecondsEach: Double
    /// By both ends.
    let notificationsPerThousand: Double
  }

  /// Carries `trips` requests, a multiple of `batch`, around a ring of `pages`.
  ///
  /// - Parameter sleeps: whether an end that has nothing to do sleeps on an eventfd, or looks on.
  func run(over pages: PrivatePages, batch: UInt32, trips: UInt64, sleeps: Bool) -> Figures {
    let region = pages.region()
    var front = unsafe ring_end()
    // Safe: the region has that many bytes and outlives the call, which ends with both threads.
    unsafe front.page = region.baseAddress
    unsafe (front.byte_count, front.batch, front.trips) = (UInt32(region.byteCount), batch, trips)
    unsafe front.sleeps = sleeps
    var back = unsafe front
    let nanoseconds = unsafe ring_ends_run(self.front, &front, self.back, &back)
    precondition(unsafe front.sum > 0 && back.sum > 0, "nothing was carried")
    return unsafe Figures(
      nanosecondsEach: Double(nanoseconds) / Double(trips),
      notificationsPerThousand: Double(front.notifications + back.notifications) * 1000 / Double(trips))
  }
}

/// Runs what a peer that breaks the ring would end; here both ends are ours.
private func keeping(_ body: () throws(RingViolation) -> Void) {
  do throws(RingViolation) { try body() } catch { fatalError("\(error)") }
}
