import Foundation
import Synchronization
import XenPlatform
import XenRing

/// The two moments at which a ring needs a barrier: one end pushes while the other looks for the last time before it sleeps. Each
/// stores an index and loads the other's; where both loads pass the stores, nobody is told and nobody sees, and an end sleeps for ever.
///
/// Whether processors do that depends on where they are and what else they do, so each round has a third race, of two bare words,
/// which nothing keeps in order: only while *its* loads are seen to pass does it mean something that the ring's are not.
final class Barriers: Sendable {
  /// What the races of a run gave.
  struct Outcome { var rounds = 0, requestsLost = 0, responsesLost = 0, bareLost = 0 }

  private static let lineWords = 8
  private static let noiseLines = 32
  /// How far each thread has come, each in a line of its own.
  private let arrived = InlineArray<16, Atomic<UInt64>> { _ in Atomic(0) }
  /// The two words of the bare race, each in a line of its own.
  private let bare = InlineArray<16, Atomic<UInt64>> { _ in Atomic(0) }
  /// Lines that both write before each race: the stores behind them wait until they have come over, and loads need not.
  private let noise = InlineArray<256, Atomic<UInt64>> { _ in Atomic(0) }
  /// What the front thread found in the race that is just over.
  private let frontMissed = Atomic(false)
  private let over = Atomic(false)
  private let outcome = Mutex(Outcome())

  /// Runs rounds until a ring has lost an event, until `enough` bare races were lost, or until `seconds` are over.
  static func run(enough: Int, seconds: Double) -> Outcome {
    let barriers = Barriers()
    let pages = PrivatePages(pageCount: 1)
    let front = Mutex(
      Optional(FrontRing<UInt64, UInt64>(initialising: pages.region(), at: RingIndex(rawValue: .max - 1000))))
    let deadline = Uptime(nanoseconds: Uptime.now.nanoseconds + UInt64(seconds * 1e9))
    RingThreads.together {
      barriers.front(front.withLock { $0.take()! })
    } _: {
      barriers.back(
        BackRing(attaching: pages.region(), at: RingIndex(rawValue: .max - 1000)), enough: enough, deadline: deadline)
    }
    return barriers.outcome.withLock { $0 }
  }

  /// Keeps the calling thread to a processor of its own where there are two, so that both run at once beside whatever else runs.
  private static func settle(_ me: Int) {
    // The C library's headers show these to programs that ask for GNU's names, which Swift's do not.
    typealias Call = @convention(c) (pid_t, Int, UnsafeMutableRawPointer) -> CInt
    guard let get = unsafe dlsym(nil, "sched_getaffinity"), let set = unsafe dlsym(nil, "sched_setaffinity") else {
      return
    }
    var mask = InlineArray<16, UInt64>(repeating: 0)
    let byteCount = MemoryLayout.size(ofValue: mask)
    // Safe: both take a thread, or 0 for the calling one, and a mask of so many bytes.
    unsafe withUnsafeMutableBytes(of: &mask) { mask in
      guard unsafe unsafeBitCast(get, to: Call.self)(0, byteCount, mask.baseAddress!) > 0 else { return }
      let words = unsafe mask.assumingMemoryBound(to: UInt64.self)
      let processors = (0..<64).filter { unsafe words[0] & 1 << UInt64($0) != 0 }
      guard processors.count > 1 else { return }
      unsafe words[0] = 1 << UInt64(processors[me])
      _ = unsafe unsafeBitCast(set, to: Call.self)(0, byteCount, mask.baseAddress!)
    }
  }

  /// Waits for the other thread; what both did before it, both see behind it.
  private func meet(_ me: Int, _ step: inout UInt64) {
    step += 1
    arrived[me * Self.lineWords].store(step, ordering: .releasing)
    var looks = 0
    while arrived[(1 - me) * Self.lineWords].load(ordering: .acquiring) < step {
      looks += 1
      if looks > 2_000 { sched_yield() }
    }
  }

  /// As `meet`, and then fills this processor's queue of stores: more of them in some rounds than in others.
  private func meetToRace(_ me: Int, _ step: inout UInt64, _ round: UInt64) {
    meet(me, &step)
    for line in 0..<Int(round % UInt64(Self.noiseLines)) {
      noise[line * Self.lineWords].store(round, ordering: .relaxed)
    }
  }

  /// This thread's half of the bare race: whether it missed the other's store.
  private func bareMisses(_ me: Int, _ round: UInt64) -> Bool {
    bare[me * Self.lineWords].store(round, ordering: .releasing)
    return bare[(1 - me) * Self.lineWords].load(ordering: .acquiring) != round
  }

  private func front(_ ring: consuming FrontRing<UInt64, UInt64>) {
    Self.settle(0)
    var (step, round): (UInt64, UInt64) = (0, 0)
    do {
      while true {
        round += 1
        // A request that the back end takes without asking for an event: the next one's must be asked for.
        ring.put(round)
        ring.push()
        meet(0, &step)
        ring.put(round)
        meetToRace(0, &step, round)
        frontMissed.store(!ring.pushAndCheckNotify(), ordering: .relaxed)
        meet(0, &step)
        // The back end answers the first.
        meet(0, &step)
        _ = try ring.available()
        guard ring.next() == round else { fatalError("response \(round) is not there") }
        meetToRace(0, &step, round)
        frontMissed.store(try !ring.finalCheck(), ordering: .relaxed)
        meet(0, &step)
        _ = try ring.available()
        guard ring.next() == round else { fatalError("response \(round) is not there") }
        meetToRace(0, &step, round)
        frontMissed.store(bareMisses(0, round), ordering: .relaxed)
        meet(0, &step)
        // The back end counts, and says whether there is another round.
        meet(0, &step)
        if over.load(ordering: .relaxed) { return }
      }
    } catch { fatalError("\(error)") }
  }

  private func back(_ ring: consuming BackRing<UInt64, UInt64>, enough: Int, deadline: Uptime) {
    var (step, round): (UInt64, UInt64) = (0, 0)
    var found = Outcome()
    Self.settle(1)
    do {
      while true {
        round += 1
        meet(1, &step)
        _ = try ring.available()
        guard ring.next() == round else { fatalError("request \(round) is not there") }
        meetToRace(1, &step, round)
        let requestMissed = try !ring.finalCheck()
        meet(1, &step)
        if requestMissed, frontMissed.load(ordering: .relaxed) { found.requestsLost += 1 }
        _ = try ring.available()
        guard ring.next() == round else { fatalError("request \(round) is not there") }
        ring.put(round)
        _ = ring.pushAndCheckNotify()
        meet(1, &step)
        ring.put(round)
        meetToRace(1, &step, round)
        let responseMissed = !ring.pushAndCheckNotify()
        meet(1, &step)
        if responseMissed, frontMissed.load(ordering: .relaxed) { found.responsesLost += 1 }
        meetToRace(1, &step, round)
        let bareMissed = bareMisses(1, round)
        meet(1, &step)
        if bareMissed, frontMissed.load(ordering: .relaxed) { found.bareLost += 1 }
        found.rounds += 1
        let late = round % 16 == 0 && Uptime.now > deadline
        if found.requestsLost + found.responsesLost > 0 || found.bareLost >= enough || late {
          over.store(true, ordering: .relaxed)
        }
        meet(1, &step)
        if over.load(ordering: .relaxed) { break }
      }
    } catch { fatalError("\(error)") }
    outcome.withLock { $0 = found }
  }
}
