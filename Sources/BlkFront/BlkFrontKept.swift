import BlkIf

/// What was in flight when a backend went away, until the next one has answered it: in the order in which it was asked for.
///
/// What writes carry is copied into memory of this process first, since the pages may be shared with another domain the next
/// time. A request that is larger than the new backend takes is put in parts, and completes when all of them have.
struct BlkFrontKept {
  private struct Kept {
    let request: BlkFrontRequest
    /// A write's payload, or what the parts of a read have brought so far.
    var pages: PrivatePages?
    var putByteCount = 0
    var isPut = false
    var partsInFlight = 0
    var result = BlkFrontCompletion.Result.succeeded

    var hasEnded: Bool { (isPut || result != .succeeded) && partsInFlight == 0 }
  }

  private var list: [Kept] = []
  /// The first that is not put.
  private var next = 0

  var count: Int { list.count }
  var isEmpty: Bool { list.isEmpty }
  /// Whether all of it is with the backend.
  var isPut: Bool { next == list.count }
  var partsInFlight: Int { list.reduce(0) { $0 + $1.partsInFlight } }
  var tags: [UInt64] { list.map(\.request.tag) }

  /// Adds what `queues` have in flight. What was put again and not answered is to be put once more.
  mutating func take(_ queues: borrowing BlkFrontQueues) {
    queues.forEachUnanswered { request, payload in
      guard request.partOffset == nil else { return }
      list.append(Kept(request: request, pages: payload.byteCount > 0 ? PrivatePages(copying: payload) : nil))
    }
    list.sort { $0.request.sequence < $1.request.sequence }
    for index in list.indices {
      (list[index].putByteCount, list[index].isPut, list[index].partsInFlight) = (0, false, 0)
      list[index].result = .succeeded
    }
    next = 0
  }

  /// Forgets those that are not with a backend and whose tags `isUnwanted`; gives how many those were.
  mutating func remove(_ isUnwanted: (UInt64) -> Bool) -> Int {
    let before = list.count
    list.removeAll { $0.partsInFlight == 0 && isUnwanted($0.request.tag) }
    next = list.firstIndex { !$0.isPut } ?? list.count
    return before - list.count
  }

  mutating func removeAll() { (list, next) = ([], 0) }

  /// Puts as much as there is room for.
  ///
  /// - Parameter objection: what the backend that is connected now has against a request.
  mutating func put(
    on queues: inout BlkFrontQueues, maxByteCount: Int,
    objection: (BlkFrontRequest) -> BlkFrontCompletion.Result?
  ) {
    while next < list.count {
      if !list[next].isPut, list[next].putByteCount == 0, let result = objection(list[next].request) {
        list[next].result = result
        list[next].isPut = true
      }
      guard list[next].isPut || putParts(of: next, on: &queues, maxByteCount) else { return }
      next += 1
    }
  }

  /// - Returns: false when there is no room for all.
  private mutating func putParts(of index: Int, on queues: inout BlkFrontQueues, _ maxByteCount: Int) -> Bool {
    let request = list[index].request
    while !list[index].isPut {
      let offset = list[index].putByteCount
      var part = request
      part.partOffset = UInt32(offset)
      part.byteCount = min(request.byteCount - offset, maxByteCount)
      part.sector += UInt64(offset / BlkIf.sectorByteCount)
      let payload = request.isWrite ? list[index].pages?.bytes.slice(from: offset, count: part.byteCount) : nil
      do throws(BlkFrontError) { try queues.putAgain(part, payload ?? .none) } catch { return false }
      list[index].partsInFlight += 1
      list[index].putByteCount += part.byteCount
      list[index].isPut = list[index].putByteCount == request.byteCount
    }
    return true
  }

  /// Takes in that a part has completed, and what it has brought.
  mutating func settle(_ completion: BlkFrontCompletion) {
    guard let index = list.firstIndex(where: { $0.request.sequence == completion.request.sequence }) else {
      preconditionFailure("a part is one of something")
    }
    list[index].partsInFlight -= 1
    // The first failure says most.
    if list[index].result == .succeeded { list[index].result = completion.result }
    guard completion.byteCount > 0, let offset = completion.request.partOffset else { return }
    if list[index].pages == nil { list[index].pages = PrivatePages(byteCount: list[index].request.byteCount) }
    completion.payload.copy(
      to: list[index].pages!.bytes.slice(from: Int(offset), count: completion.byteCount))
  }

  /// The next one that is done, as its user is to be told; nil when there is none.
  ///
  /// - Parameter pieces: describes what it brings.
  mutating func nextEnded(_ pieces: SharedPieceTable) -> (completion: BlkFrontCompletion, memory: PrivatePages?)? {
    guard let index = list.firstIndex(where: \.hasEnded) else { return nil }
    let kept = list.remove(at: index)
    if index < next { next -= 1 }
    var payload = SharedPieces.none
    if kept.result == .succeeded, kept.request.isRead, let pages = kept.pages {
      payload = pieces.append(pages.bytes.slice(from: 0, count: kept.request.byteCount), to: nil, at: 0)
    }
    return (BlkFrontCompletion(kept.request, kept.result, payload: payload), kept.pages)
  }
}

extension PrivatePages {
  fileprivate convenience init(byteCount: Int) { self.init(pageCount: (byteCount + xenPageSize - 1) / xenPageSize) }

  fileprivate convenience init(copying payload: SharedPieces) {
    self.init(byteCount: payload.byteCount)
    payload.copy(to: bytes.slice(from: 0, count: payload.byteCount))
  }
}
