import BlkIf
import XenRing

/// Where a request's payload is while the store has it: in the frontend's own pages, or in buffers.
extension BlkBackWork {
  /// Has the pages that describe an indirect request's segments copied into buffers, unless they are mapped.
  ///
  /// - Returns: false when there are no buffers.
  mutating func describe(_ place: Int) -> Bool {
    guard !places[place]!.isParsed, !places[place]!.hasFailed else { return true }
    let request = places[place]!.request
    if map(place, request.indirectPageCount, { GrantReference(rawValue: request.indirectReferences[$0]) }) {
      return true
    }
    if places[place]!.hasFailed { return true }
    guard takeBuffers(request.indirectPageCount, for: place) else { return false }
    for page in 0..<request.indirectPageCount {
      let count = min(request.segmentCount - page * BlkIf.segmentsPerIndirectPage, BlkIf.segmentsPerIndirectPage)
      addCopy(
        .fromGrant, place, buffer: page, offset: 0, count: count * MemoryLayout<BlkIfSegment>.stride,
        GrantReference(rawValue: request.indirectReferences[page]))
    }
    return true
  }

  /// An indirect request's segments pass the gate, from a copy of our own.
  ///
  /// - Returns: false when they do not, and the request is answered.
  mutating func parse(_ place: Int) -> Bool {
    guard !places[place]!.isParsed else { return true }
    if places[place]!.hasFailed {
      giveBackBuffers(of: place)
      return true
    }
    var request = places[place]!.request
    let isCopied = places[place]!.bufferCount > 0
    for page in 0..<request.indirectPageCount {
      let first = page * BlkIf.segmentsPerIndirectPage
      let count = min(request.segmentCount - first, BlkIf.segmentsPerIndirectPage) * MemoryLayout<BlkIfSegment>.stride
      let source: SharedBytes
      if isCopied {
        source = buffer(place, page, offset: 0, count: count)
      } else {
        let reference = GrantReference(rawValue: request.indirectReferences[page])
        guard let mapped = persistent?.bytes(of: reference, for: places[place]!.number, now: now) else {
          preconditionFailure("what was mapped for a request stays as long as it is in flight")
        }
        source = mapped.slice(from: 0, count: count)
      }
      unsafe descriptors.withUnsafeMutableBytes { bytes in
        // Safe: the descriptors from `first` on have room for as many bytes.
        let start = unsafe bytes.baseAddress! + first * MemoryLayout<BlkIfSegment>.stride
        unsafe SharedBytes(baseAddress: start, count: count).copy(from: source)
      }
    }
    giveBackBuffers(of: place)
    do throws(BlkRequestFault) {
      let (rules, start, copied) = (rules, place * maxSegmentCount, descriptors)
      var span = segments.mutableSpan
      try request.parse(
        descriptors: copied.span.extracting(0..<request.segmentCount), by: rules, segments: &span, at: start)
      places[place]!.request = request
      places[place]!.isParsed = true
      return true
    } catch {
      answer(place, id: request.id, operation: request.operation, status: error.status)
      return false
    }
  }

  /// Puts a request's payload where the store reaches it: the frontend's pages, mapped, or buffers, into which what is to be
  /// written is copied.
  ///
  /// - Returns: false when there are no buffers.
  mutating func provide(_ place: Int) -> Bool {
    let request = places[place]!.request
    guard request.segmentCount > 0, !places[place]!.hasFailed else { return true }
    let start = place * maxSegmentCount
    if persistent != nil, mapPayload(place, request) { return true }
    if places[place]!.hasFailed { return true }
    guard takeBuffers(request.segmentCount, for: place) else { return false }
    var payload: SharedPieces?
    for index in 0..<request.segmentCount {
      let segment = segments[start + index]
      payload = pieces.append(
        buffer(place, index, offset: Int(segment.offset), count: Int(segment.byteCount)), to: payload, at: start)
    }
    places[place]!.pieces = payload!
    if request.kind != .read { addCopies(.fromGrant, place) }
    return true
  }

  /// - Returns: false when the payload has to be copied; also for a request that has failed.
  private mutating func mapPayload(_ place: Int, _ request: BlkRequest) -> Bool {
    let start = place * maxSegmentCount
    lastNumber += 1
    places[place]!.number = lastNumber
    // Twice: when one is missing, all that are missing are mapped and the payload is laid out anew.
    for _ in 0..<2 {
      var payload: SharedPieces?
      for index in 0..<request.segmentCount {
        let segment = segments[start + index]
        guard let page = persistent!.bytes(of: segment.reference, for: lastNumber, now: now) else {
          payload = nil
          break
        }
        payload = pieces.append(
          page.slice(from: Int(segment.offset), count: Int(segment.byteCount)), to: payload, at: start)
      }
      if let payload {
        places[place]!.pieces = payload
        return true
      }
      let segments = segments
      guard map(place, request.segmentCount, { segments[start + $0].reference }) else { return false }
    }
    preconditionFailure("what has just been mapped is there")
  }

  /// Has these pages of the frontend's mapped for the request at `place`, if that can be.
  ///
  /// - Returns: false when it cannot, and they have to be copied. A request whose pages are refused has failed.
  private mutating func map(_ place: Int, _ count: Int, _ reference: (Int) -> GrantReference) -> Bool {
    guard persistent != nil else { return false }
    if places[place]!.number == 0 {
      lastNumber += 1
      places[place]!.number = lastNumber
    }
    for attempt in 0..<2 {
      do throws(PersistentGrants.Shortage) {
        try persistent!.map(count, for: places[place]!.number, now: now, reference: reference)
        trimsAt = trimsAt ?? now + Self.persistentLife
        return true
      } catch {
        switch error {
        case .room(let pageCount) where attempt == 0:
          let oldest = oldestNumber
          persistent!.makeRoom(for: pageCount, inUse: oldest)
        case .room, .exhausted: return false
        case .refused:
          places[place]!.hasFailed = true
          return false
        }
      }
    }
    return false
  }

  /// Nothing in flight is older: what was last used before it is used by nobody.
  private var oldestNumber: RequestNumber {
    places.reduce(lastNumber + 1) { oldest, place in
      guard let number = place?.number, number > 0 else { return oldest }
      return min(oldest, number)
    }
  }

  // MARK: Buffers and copies

  private func buffer(_ place: Int, _ index: Int, offset: Int, count: Int) -> SharedBytes {
    buffers.bytes(page: Int(buffersOf[place * maxSegmentCount + index]), offset: offset, count: count)
  }

  private mutating func takeBuffers(_ count: Int, for place: Int) -> Bool {
    guard freeBuffers.count >= count else { return false }
    for index in 0..<count { buffersOf[place * maxSegmentCount + index] = freeBuffers.removeLast() }
    places[place]!.bufferCount = count
    return true
  }

  mutating func giveBackBuffers(of place: Int) {
    let count = places[place]!.bufferCount
    // Backwards, so that they are neighbours again when they are next taken.
    for index in (0..<count).reversed() { freeBuffers.append(buffersOf[place * maxSegmentCount + index]) }
    places[place]!.bufferCount = 0
  }

  mutating func addCopies(_ direction: GrantCopy.Direction, _ place: Int) {
    for index in 0..<places[place]!.request.segmentCount {
      let segment = segments[place * maxSegmentCount + index]
      addCopy(
        direction, place, buffer: index, offset: Int(segment.offset), count: Int(segment.byteCount), segment.reference)
    }
  }

  private mutating func addCopy(
    _ direction: GrantCopy.Direction, _ place: Int, buffer index: Int, offset: Int, count: Int,
    _ reference: GrantReference
  ) {
    copies.append(
      GrantCopy(
        direction, local: buffer(place, index, offset: offset, count: count), reference: reference, of: frontend,
        offset: UInt16(offset)))
    copyPlaces.append(place)
  }

  mutating func runCopies() {
    guard !copies.isEmpty else { return }
    let grants = grants
    var span = copies.mutableSpan
    grants.copy(&span)
    for index in copies.indices where copies[index].status != .okay { places[copyPlaces[index]]!.hasFailed = true }
    copies.removeAll(keepingCapacity: true)
    copyPlaces.removeAll(keepingCapacity: true)
  }

  /// Gives back memory that nobody has used for a while, and says when to look again.
  mutating func giveBack() -> PollOutcome {
    guard let instant = trimsAt else { return .idle }
    if now < instant { return .idleUntil(Uptime(nanoseconds: instant)) }
    trimsAt = nil
    let oldest = oldestNumber
    persistent?.trim(before: now - min(now, Self.persistentLife) + 1, inUse: oldest)
    if inFlightCount == 0, now - min(now, busyAt) >= Self.bufferLife {
      buffers.squeeze()
    } else {
      trimsAt = now + Self.bufferLife
    }
    if let persistent, persistent.pageCount > 0 { trimsAt = trimsAt ?? now + Self.persistentLife / 4 }
    return trimsAt.map { .idleUntil(Uptime(nanoseconds: $0)) } ?? .idle
  }
}
