import NetIf
import XenRing

/// The transmit ring, its page pool and its in-flight table.
///
/// A request's id is its place in the table, and names a page that was shared, for reading only, when the device
/// connected: a frame needs no grant call. Backends answer in any order.
///
/// An extra info has a slot and no page, and its answer no id: such slots are counted, and an id that an answer to one
/// holds all the same means nothing.
struct NetFrontTransmit: ~Copyable {
  /// What a request in flight belongs to. A frame is answered slot by slot, and done with the last one.
  private struct Entry: BitwiseCopyable {
    var isInFlight: Bool
    var unansweredCount: UInt8
    var result = NetTxResult.sent
    /// The id of the frame's first request. The entry of that one has the rest, and keeps its page until all are answered.
    let first: UInt16
    let byteCount: UInt16

    static var idle: Entry { Entry(isInFlight: false, unansweredCount: 0, first: 0, byteCount: 0) }

    /// Whether one answer that it was sent, to the request with this id, is all that a frame waits for.
    @inline(__always) func waitsOnly(for id: UInt16) -> Bool {
      isInFlight && unansweredCount == 1 && result == .sent && first == id && byteCount > 0
    }
  }

  private var ring: FrontRing<NetIfTxRequest, NetIfTxResponse>
  private let pages: NetFrontPages
  /// Whether an event is asked for after half of the responses that can come; else at the next one.
  var holdsOffEvents = true
  /// Nothing of a frame is to be in a page of another (`trusted`).
  private let isUntrusted: Bool
  private var entries: PlainArray<Entry>
  private var freePages: PlainArray<UInt16>
  /// How many responses are brought near at once: as many as a backend's turn has.
  private static let expectedCount: UInt32 = 128
  /// The page of a frame no longer than this is brought near when it comes back, many of them at a time. A longer one has more lines
  /// than can be on their way at once: they are brought near while the frame before it is written.
  private static let shortByteCount = 128
  /// Pages are used in steps of so many, 37 where there are 256, and not one behind the other: short frames go faster so, maybe since
  /// no processor that reads them foresees the next page, and takes from us a line that we are about to write. A prime number that is
  /// larger than any pool, so that each page has its turn.
  private static let pageStep = 293
  /// Frames put and not yet answered, and the extra infos that went with them or with others.
  private(set) var inFlightCount = 0
  private var extraInfosInFlight = 0
  /// What was said of groups, by the id of the request that has no frame, and what has been answered.
  private var multicastChanges: [UInt16: NetFrontMulticast.Change] = [:]
  private var multicastResults: [(change: NetFrontMulticast.Change, result: NetTxResult)] = []
  private(set) var counts = NetCounts()
  /// Frames that were put to be cut.
  private(set) var segmentedCount: UInt64 = 0

  init(
    ring: consuming FrontRing<NetIfTxRequest, NetIfTxResponse>, pages: consuming NetFrontPages, isUntrusted: Bool
  ) {
    precondition(pages.count <= ring.entryCount && pages.count < Self.pageStep, "no more pages than slots")
    entries = PlainArray(repeating: .idle, count: pages.count)
    freePages = PlainArray(capacity: pages.count)
    for number in (0..<pages.count).reversed() { freePages.append(UInt16(number * Self.pageStep % pages.count)) }
    self.ring = ring
    self.pages = pages
    self.isUntrusted = isUntrusted
  }

  var ringStatistics: RingStatistics { ring.statistics }

  /// Its pages', which the backend only reads.
  var pageReferences: [GrantReference] { pages.references }

  /// The longest frame there are pages for.
  var maxByteCount: Int { min(pages.count * xenPageSize, NetIf.maxFrameByteCount) }

  /// Whether a frame of this length could be put now.
  ///
  /// - Parameter isSegmented: whether it has an extra info.
  // Inlined: a call from what changes us would first copy all of us, and read there what was just written in other pieces,
  // which waits until that, and all that was written to the shared pages before, has left the processor.
  @inline(__always) func hasRoom(for byteCount: Int, isSegmented: Bool) -> Bool {
    let count = NetIf.pageCount(of: byteCount)
    return count <= freePages.count && UInt32(isSegmented ? count + 1 : count) <= ring.freeRequestCount
  }

  /// How many frames of this length there are pages for, and slots, when nothing else is there.
  func capacity(for byteCount: Int) -> Int { pages.count / NetIf.pageCount(of: byteCount) }

  /// Whether so many frames of this length at most could be put now, none of which is to be cut.
  func hasRoom(forFrames count: Int, of byteCount: Int) -> Bool {
    let slotCount = count * NetIf.pageCount(of: byteCount)
    return slotCount <= freePages.count && UInt32(slotCount) <= ring.freeRequestCount
  }

  /// The caller has checked the frame's length. Its bytes are copied into pages of ours once.
  @inline(__always) mutating func put(_ frame: Span<UInt8>, _ form: NetFrontTxForm) throws(NetFrontError) {
    if frame.count <= xenPageSize, form.segmentation == nil {
      try putWhole(frame, flags: form.flags, form.checksum)
    } else {
      try putParts(of: frame, form)
    }
  }

  /// A frame of one slot, as most are.
  @inline(__always) private mutating func putWhole(
    _ frame: Span<UInt8>, flags: UInt16, _ checksum: (offset: Int, value: UInt16)?
  ) throws(NetFrontError) {
    guard !freePages.isEmpty, ring.freeRequestCount > 0 else { throw .busy }
    let id = freePages.removeLast()
    let byteCount = UInt16(truncatingIfNeeded: frame.count)
    inFlightCount &+= 1
    put(
      frame, id, Entry(isInFlight: true, unansweredCount: 1, first: id, byteCount: byteCount), size: byteCount,
      flags: flags, checksum)
  }

  private mutating func putParts(of frame: Span<UInt8>, _ form: NetFrontTxForm) throws(NetFrontError) {
    let byteCount = frame.count
    guard hasRoom(for: byteCount, isSegmented: form.segmentation != nil) else { throw .busy }
    let count = NetIf.pageCount(of: byteCount)
    let first = freePages.removeLast()
    var flags = form.flags | (count > 1 ? NetIf.TxFlag.moreData : 0)
    if form.segmentation != nil { flags |= NetIf.TxFlag.extraInfo }
    // The first slot's size is the whole frame's.
    put(
      frame.extracting(first: xenPageSize), first,
      Entry(isInFlight: true, unansweredCount: UInt8(count), first: first, byteCount: UInt16(byteCount)),
      size: UInt16(byteCount), flags: flags, form.checksum)
    if let segmentation = form.segmentation {
      put(NetIfExtraInfo(segmentation))
      segmentedCount &+= 1
    }
    if count > 1 { putFurtherParts(of: frame, first, form) }
    inFlightCount += 1
  }

  private mutating func putFurtherParts(of frame: Span<UInt8>, _ first: UInt16, _ form: NetFrontTxForm) {
    let count = NetIf.pageCount(of: frame.count)
    for part in 1..<count {
      let start = part * xenPageSize
      let bytes = frame.extracting(droppingFirst: start).extracting(first: xenPageSize)
      put(
        bytes, freePages.removeLast(), Entry(isInFlight: true, unansweredCount: 0, first: first, byteCount: 0),
        size: UInt16(bytes.count), flags: part + 1 < count ? NetIf.TxFlag.moreData : 0,
        form.checksum.map { (offset: $0.offset - start, value: $0.value) })
    }
  }

  /// Puts a part of a frame.
  ///
  /// - Parameters:
  ///   - id: of its page, which was free.
  ///   - checksum: what is written over the frame's bytes, if that is in this part.
  @inline(__always) private mutating func put(
    _ bytes: Span<UInt8>, _ id: UInt16, _ entry: Entry, size: UInt16, flags: UInt16,
    _ checksum: (offset: Int, value: UInt16)?
  ) {
    // What is put next is as long as this more often than not.
    if bytes.count > Self.shortByteCount, !freePages.isEmpty {
      pages[freePages[freePages.count &- 1]].bytes.expectWrite(of: bytes.count)
    }
    let page = pages[id]
    entries[Int(id)] = entry
    ring.put(NetIfTxRequest(gref: page.reference, flags: flags, id: id, size: size))
    // Behind all else, which would have to be kept meanwhile. The backend is shown the slot with the next push; one that looks there before
    // sees what is in a page that it has been granted, and its answer would come too early to be taken.
    page.bytes.copy(from: bytes)
    if isUntrusted { page.bytes.slice(from: bytes.count, count: xenPageSize - bytes.count).zero() }
    // Its offset is even, so that it lies within one page.
    if let checksum, checksum.offset >= 0, checksum.offset < bytes.count {
      let field: InlineArray<2, UInt8> = [
        UInt8(truncatingIfNeeded: checksum.value &>> 8), UInt8(truncatingIfNeeded: checksum.value),
      ]
      page.bytes.slice(from: checksum.offset, count: 2).copy(from: field.span)
    }
  }

  /// Puts a request without a frame, and what is to be said of a group behind it.
  ///
  /// - Returns: false when there is no room.
  mutating func put(_ change: NetFrontMulticast.Change) -> Bool {
    guard hasRoom(for: 1, isSegmented: true) else { return false }
    let id = freePages.removeLast()
    entries[Int(id)] = Entry(isInFlight: true, unansweredCount: 1, first: id, byteCount: 0)
    multicastChanges[id] = change
    ring.put(NetIfTxRequest(gref: pages[id].reference, flags: NetIf.TxFlag.extraInfo, id: id, size: 0))
    put(NetIfExtraInfo(change))
    return true
  }

  /// The next answer to what was said of a group; nil when there is none.
  mutating func nextMulticastResult() -> (change: NetFrontMulticast.Change, result: NetTxResult)? {
    multicastResults.isEmpty ? nil : multicastResults.removeFirst()
  }

  private mutating func put(_ info: NetIfExtraInfo) {
    ring.put(info.transmitSlot)
    extraInfosInFlight += 1
  }

  mutating func pushAndCheckNotify() -> Bool { ring.hasUnpushed && ring.pushAndCheckNotify() }

  /// Takes back the pages of every frame that was answered.
  ///
  /// - Parameter looks: whether the caller goes on looking, and wants no event.
  mutating func reap(looks: Bool) throws(DeviceError) {
    while try hasResponses(looks) {
      ring.expectResponses(Self.expectedCount)
      while ring.checkedCount > 0 { if let response = takeWhole() { try take(response) } }
    }
  }

  /// When there is no response, asks for an event after half of those that can come: pages are wanted back before the
  /// last one is gone, and not one by one.
  @inline(__always) private mutating func hasResponses(_ looks: Bool) throws(DeviceError) -> Bool {
    do throws(RingViolation) {
      if looks { return try ring.available() > 0 }
      return holdsOffEvents ? try ring.finalCheckHoldingOff() : try ring.finalCheck()
    } catch { throw .protocolViolation("\(NetRingViolation(.tx, error))") }
  }

  /// Whether more than a sixteenth of the responses that can come are there. An event would be asked for after half of them, as
  /// ``hasResponses(_:)`` does: to look costs less than that, and a backend that is faster than the frontend waits for frames.
  var hasWork: Bool { ring.hasUnconsumed(holdsOffEvents ? ring.pushedCount / 16 + 1 : 1) }

  /// Takes the last answers to frames that were sent, as most are, up to the first that is something else.
  ///
  /// - Returns: that one.
  @inline(__always) private mutating func takeWhole() -> NetIfTxResponse? {
    var (byteCount, other) = (0, NetIfTxResponse?.none)
    let count = ring.take { response in
      let slot = Int(response.id)
      guard response.status == NetIf.Status.okay, slot < entries.count, entries[slot].waitsOnly(for: response.id) else {
        other = response
        return false
      }
      let entry = entries[slot]
      entries[slot].isInFlight = false
      byteCount &+= Int(entry.byteCount)
      freePages.append(response.id)
      if entry.byteCount <= Self.shortByteCount { pages[response.id].bytes.expectWrite() }
      return true
    }
    let frameCount = Int(count) &- (other == nil ? 0 : 1)
    counts.packets &+= UInt64(frameCount)
    counts.bytes &+= UInt64(byteCount)
    inFlightCount &-= frameCount
    return other
  }

  private mutating func take(_ response: NetIfTxResponse) throws(DeviceError) {
    let slot = Int(response.id)
    let result: NetTxResult
    do throws(NetResponseViolation) {
      result = try NetTxResult(parsing: response)
      if result == .extraInfo {
        guard extraInfosInFlight > 0 else { throw .txExtraInfo }
        extraInfosInFlight -= 1
        return
      }
      guard slot < entries.count, entries[slot].isInFlight else { throw .txNotInFlight(id: response.id) }
    } catch { throw .protocolViolation("\(error)") }
    entries[slot].isInFlight = false
    let first = entries[slot].first
    if response.id != first { freePages.append(response.id) }
    // A frame is lost with any of its parts.
    if result != .sent { entries[Int(first)].result = result }
    guard entries[Int(first)].unansweredCount == 1 else {
      entries[Int(first)].unansweredCount -= 1
      return
    }
    let entry = entries[Int(first)]
    if entry.byteCount == 0, let change = multicastChanges.removeValue(forKey: first) {
      multicastResults.append((change, entry.result))
      freePages.append(first)
      return
    }
    switch entry.result {
    case .sent: counts.count(packetOf: Int(entry.byteCount))
    case .failed: counts.errors &+= 1
    case .dropped: counts.drops &+= 1
    case .extraInfo: preconditionFailure("no answer to a slot with an entry")
    }
    freePages.append(first)
    inFlightCount -= 1
  }
}

extension NetIfExtraInfo {
  /// What a backend is told of how to cut a packet.
  fileprivate init(_ segmentation: NetPacketMetadata.Segmentation) {
    self.init(
      type: NetIf.ExtraType.segmentation,
      words: (segmentation.payloadByteCount, UInt16(segmentation.kind.rawValue), 0))
  }
}
