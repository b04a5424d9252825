import BlkBack
import Synchronization
import TestSupport
import Testing
import XenLoopback

/// What the guest was told is on the medium is there after the power has gone.
struct BlkBackPowerCutTests {
  private static let laneCount = 12

  /// What has been written to a lane's eight sectors, oldest first, each by its seed; zero is a fresh disk.
  private struct Lane {
    var versions = [0]
    var answeredCount = 1
    /// The index of the oldest version that the medium may still hold.
    var guaranteed = 0
  }

  private enum Asked {
    case write(lane: Int)
    /// Of each lane, the index that was answered last when it was asked for.
    case flush([Int])
    case barrier(lane: Int, [Int])
  }

  @Test(arguments: seeds(1...200, of: BlkBackPowerCutTests.self))
  func whatWasAnsweredBeforeAFlushOrBarrierIsOnTheMedium(seed: Seed) throws {
    let front = RawBlkFrontend(isPersistent: seed.modulo(2) == 0)
    let store = PowerCutStore(sectorCount: UInt64(Self.laneCount * 8), seed: seed)
    let pair = try BlkPair(seed: seed, options: BlkBackOptions(), frontend: front) { _ in store }
    try pair.connect()
    var random = SeededGenerator(seed)
    var lanes = Array(repeating: Lane(), count: Self.laneCount)
    var asked: [UInt64: Asked] = [:]
    var free = Set(0..<Self.laneCount)
    var nextID: UInt64 = 1
    var (roundCount, answeredCount) = (0, 0)
    for _ in 0..<Int.random(in: 5...60, using: &random) {
      roundCount += 1
      for _ in 0..<Int.random(in: 0...5, using: &random) where front.rings[0].freeCount > 0 {
        let answered = lanes.map { $0.answeredCount - 1 }
        let kind = Int.random(in: 0..<8, using: &random)
        if kind == 0 {
          asked[nextID] = .flush(answered)
          front.put(front.direct(BlkIf.Operation.flushDiskCache, [], id: nextID))
        } else {
          guard let lane = free.sorted().randomElement(using: &random) else { break }
          free.remove(lane)
          lanes[lane].versions.append(Int(nextID))
          front.bytes(page: lane, sector: 0, count: 4096).copy(from: pattern(4096, seed: Int(nextID)).span)
          asked[nextID] = kind == 1 ? .barrier(lane: lane, answered) : .write(lane: lane)
          front.put(
            front.direct(
              kind == 1 ? BlkIf.Operation.writeBarrier : BlkIf.Operation.write, sector: UInt64(lane * 8),
              [(lane, 0, 7)],
              id: nextID))
        }
        nextID += 1
      }
      front.push()
      for _ in 0..<Int.random(in: 1...4, using: &random) { pair.scheduler.round() }
      for response in try front.responses() {
        #expect(response.status == BlkIf.Status.okay)
        answeredCount += 1
        switch try #require(asked[response.id]) {
        case .write(let lane): answer(&lanes[lane], lane, &free)
        case .flush(let answered): guarantee(answered, &lanes)
        case .barrier(let lane, let answered):
          guarantee(answered, &lanes)
          answer(&lanes[lane], lane, &free)
          lanes[lane].guaranteed = lanes[lane].versions.count - 1
        }
      }
    }
    #expect(roundCount < 20 || answeredCount > 0, "nothing is answered")
    let medium = store.cutPower()
    // What was under way is answered all the same.
    let isDone = try pair.scheduler.run {
      answeredCount += try front.responses().count
      return answeredCount == asked.count
    }
    #expect(isDone, "\(answeredCount) of \(asked.count) are answered")
    for (number, lane) in lanes.enumerated() {
      for sector in 0..<8 {
        let start = (number * 8 + sector) * 512
        let isAllowed = lane.versions[lane.guaranteed...].contains { version in
          let whole = version == 0 ? [UInt8](repeating: 0, count: 4096) : pattern(4096, seed: version)
          return medium[start..<start + 512] == whole[sector * 512..<sector * 512 + 512]
        }
        try #require(isAllowed, "lane \(number), sector \(sector): older than what was answered")
      }
    }
  }

  private func answer(_ lane: inout Lane, _ number: Int, _ free: inout Set<Int>) {
    lane.answeredCount = lane.versions.count
    free.insert(number)
  }

  private func guarantee(_ answered: [Int], _ lanes: inout [Lane]) {
    for index in lanes.indices { lanes[index].guaranteed = max(lanes[index].guaranteed, answered[index]) }
  }
}

/// A disk with a cache that the power takes along: it completes in any order, a flush saves only what had been completed when
/// it came, and of the rest any sector may or may not have got to the medium.
final class PowerCutStore: BlockStore {
  private struct Write {
    let sector: Int
    let bytes: [UInt8]
    let completion: Int
  }

  private struct Contents {
    var medium: [UInt8]
    /// In the order of their completion.
    var cache: [Write] = []
    var completionCount = 0
    var waiting: [(request: StoreRequest, completedBefore: Int)] = []
    var random: SeededGenerator
  }

  let geometry: BlockGeometry
  private let contents: Mutex<Contents>
  private let wakeup = try! Wakeup()

  init(sectorCount: UInt64, seed: Seed) {
    geometry = BlockGeometry(sectorCount: sectorCount)
    contents = Mutex(
      Contents(medium: [UInt8](repeating: 0, count: Int(sectorCount) * 512), random: SeededGenerator(seed)))
  }

  var completionDescriptor: CInt? { wakeup.descriptor }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    contents.withLock { contents in
      for index in requests.indices { contents.waiting.append((requests[index], contents.completionCount)) }
    }
    wakeup.signal()
  }

  func reap(into completions: inout StoreCompletions) {
    wakeup.clear()
    let done = contents.withLock { contents -> [StoreRequest] in
      contents.waiting.shuffle(using: &contents.random)
      let count = Int.random(in: 0...contents.waiting.count, using: &contents.random)
      let begun = contents.waiting.prefix(count)
      contents.waiting.removeFirst(count)
      for (request, completedBefore) in begun { Self.perform(request, completedBefore, &contents) }
      if !contents.waiting.isEmpty { wakeup.signal() }
      return begun.map(\.request)
    }
    for request in done { completions.complete(request) }
  }

  private static func perform(_ request: StoreRequest, _ completedBefore: Int, _ contents: inout Contents) {
    contents.completionCount += 1
    switch request.kind {
    case .flush: save(&contents) { $0.completion <= completedBefore }
    case .write: keep(request, &contents)
    case .writeBarrier:
      keep(request, &contents)
      save(&contents) { _ in true }
    case .read, .discard, .secureDiscard: break
    }
  }

  private static func keep(_ request: StoreRequest, _ contents: inout Contents) {
    let bytes = request.payload.copied()
    for index in 0..<bytes.count / 512 {
      contents.cache.append(
        Write(
          sector: Int(request.sector) + index, bytes: Array(bytes[index * 512..<index * 512 + 512]),
          completion: contents.completionCount))
    }
  }

  private static func save(_ contents: inout Contents, where isSaved: (Write) -> Bool) {
    for write in contents.cache where isSaved(write) {
      contents.medium.replaceSubrange(write.sector * 512..<write.sector * 512 + 512, with: write.bytes)
    }
    contents.cache.removeAll(where: isSaved)
  }

  /// What is found when the power is back.
  func cutPower() -> [UInt8] {
    contents.withLock { contents in
      var random = contents.random
      Self.save(&contents) { _ in Bool.random(using: &random) }
      return contents.medium
    }
  }
}
