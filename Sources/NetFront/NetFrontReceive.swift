import NetIf
import XenRing

/// The receive ring and its page pool.
///
/// Every page is asked for again as soon as its frame has been handed over, in the next slot of the ring, which the backend sees a little
/// later; so it has all pages but a few while we poll, and those of a frame whose last slot has not come. A request's id is its slot.
struct NetFrontReceive: ~Copyable {
  private var ring: FrontRing<NetIfRxRequest, NetIfRxResponse>
  private var pages: NetFrontPages
  private var agreement: NetRxAgreement
  /// The page that stands in each slot.
  private var postedPages: PlainArray<UInt16>
  /// As far as it has come, and the pages that its slots have brought; or lost, and then it holds no pages.
  private var frame: NetFrontFrame
  /// Its pieces but the first one, and their pages.
  private var otherPieces = PlainArray<SharedBytes>(capacity: NetIf.maxFragmentCount)
  private var otherPages = PlainArray<UInt16>(capacity: NetIf.maxFragmentCount)
  private var frameIsLost = false
  private var extraInfos = NetRxExtraInfos()
  /// What the next slot holds: an extra info, a fragment, or the beginning of a frame.
  private var extraInfoFollows = false
  private var fragmentFollows = false
  private var firstPage: UInt16 = 0
  /// Where in it the frame begins.
  private var firstOffset = 0
  private(set) var counts = NetCounts()
  /// Frames to be cut that came without a blank checksum.
  private(set) var checksumFixups: UInt64 = 0
  /// Frames to be cut that were handed over.
  private(set) var segmentedCount: UInt64 = 0

  /// How many responses are brought near at once: as many as a backend's turn has.
  private static let expectedCount: UInt32 = 128

  /// How many pages that have come back the backend is shown at once, before all frames are handed over: it fills them while we hand over
  /// the frames that come next.
  private static let responsesPerPush: UInt32 = 32

  /// Where frames of a backend that is not trusted are copied to before anybody looks at them; nil for one that is.
  private let bounce: NetFrontBounce?

  /// Asks for a frame in every page; ``pushAndCheckNotify()`` shows it.
  ///
  /// - Parameter agreement: what the backend may give.
  init(
    ring: consuming FrontRing<NetIfRxRequest, NetIfRxResponse>, pages: consuming NetFrontPages,
    agreement: NetRxAgreement, isUntrusted: Bool
  ) {
    precondition(pages.count <= ring.entryCount, "no more pages than slots")
    postedPages = PlainArray(repeating: 0, count: ring.entryCount)
    let count = pages.count
    self.ring = ring
    self.pages = pages
    self.agreement = agreement
    bounce = isUntrusted ? NetFrontBounce() : nil
    // Safe: it is ours, as the memory is.
    frame = unsafe NetFrontFrame(others: otherPieces.start)
    for page in 0..<UInt16(count) { post(page) }
  }

  var ringStatistics: RingStatistics { ring.statistics }

  /// From now on there may be room before a frame, as its extra info says.
  mutating func takeHeadroom() { agreement.headroom = true }

  /// Its pages'.
  var pageReferences: [GrantReference] { pages.references }

  /// How many more pages the ring has slots for.
  var missingPageCount: Int { ring.entryCount - pages.count }

  /// Has these pages posted too.
  mutating func add(_ more: consuming GrantedPages) {
    let first = pages.count
    pages.add(more)
    precondition(pages.count <= ring.entryCount, "no more pages than slots")
    for page in UInt16(first)..<UInt16(pages.count) { post(page) }
  }

  private mutating func post(_ page: UInt16) {
    if bounce != nil { pages[page].bytes.zero() }
    let slot = ring.requestSlot
    postedPages[slot] = page
    // Safe to cut: a ring of such slots has fewer than 65536.
    ring.put(NetIfRxRequest(id: UInt16(truncatingIfNeeded: slot), gref: pages[page].reference))
  }

  mutating func pushAndCheckNotify() -> Bool { ring.hasUnpushed && ring.pushAndCheckNotify() }

  /// Hands over every frame that is there: at most twice as many as the ring has slots, since pages that come back once so many
  /// responses were taken as it has are shown to the backend only when we are done. A frame whose last slot has not come waits for it.
  ///
  /// - Parameter looks: whether the caller goes on looking, and wants no event.
  /// - Returns: how many there were, and whether the backend is to be told of the pages that it has back.
  mutating func poll(
    looks: Bool, _ body: (borrowing NetFrontFrame) -> Void
  ) throws(DeviceError) -> (frameCount: Int, notifies: Bool) {
    var (received, taken, notifies) = (0, 0, false)
    while try hasResponses(looks) {
      ring.expectResponses(Self.expectedCount)
      while ring.checkedCount > 0 {
        let before = ring.checkedCount
        received &+= try takeSome(body)
        taken &+= Int(before &- ring.checkedCount)
        if ring.unpushedCount >= Self.responsesPerPush, taken <= ring.entryCount { push(&notifies) }
      }
    }
    if ring.hasUnpushed { push(&notifies) }
    return (received, notifies)
  }

  /// Shows the backend the pages that have come back. It is told of all of them at once.
  @inline(__always) private mutating func push(_ notifies: inout Bool) {
    if notifies { ring.push() } else { notifies = ring.pushAndCheckNotify() }
  }

  /// Takes a few responses.
  ///
  /// - Returns: how many frames were handed over.
  @inline(__always) private mutating func takeSome(
    _ body: (borrowing NetFrontFrame) -> Void
  ) throws(DeviceError) -> Int {
    // The first slot of a frame may be all of it.
    if bounce == nil, !extraInfoFollows, !fragmentFollows {
      let (count, other) = takeWhole(body)
      guard let other else { return count }
      return try count &+ take(other.response, in: other.slot, body)
    }
    let slot = UInt16(truncatingIfNeeded: ring.responseSlot)
    guard let response = ring.next() else { return 0 }
    return try take(response, in: slot, body)
  }

  /// Hands over frames of one slot each, as most are, up to the first response that is something else, and asks for a frame in each
  /// of their pages again. Each is handed over in the same place: put together with what we hold of others, and read there at once,
  /// it would have to wait until all that was written to the ring before it has left the processor.
  ///
  /// - Returns: how many there were, and that other response.
  private mutating func takeWhole(
    _ body: (borrowing NetFrontFrame) -> Void
  ) -> (count: Int, other: (response: NetIfRxResponse, slot: UInt16)?) {
    let agreement = agreement
    var frame = NetFrontFrame()
    var byteCount = 0
    var other: (NetIfRxResponse, UInt16)?
    let count = ring.renew(upTo: Self.responsesPerPush) { response, slot, requestSlot in
      // Safe to cut: a ring of such slots has fewer than 65536.
      guard let fragment = agreement.whole(response, in: UInt16(truncatingIfNeeded: slot)) else {
        other = (response, UInt16(truncatingIfNeeded: slot))
        return nil
      }
      let number = postedPages[slot]
      let page = pages[number]
      frame.become(page.bytes.slice(from: fragment.offset, count: fragment.byteCount), fragment.checksum)
      body(frame)
      byteCount &+= fragment.byteCount
      postedPages[requestSlot] = number
      return NetIfRxRequest(id: UInt16(truncatingIfNeeded: requestSlot), gref: page.reference)
    }
    counts.packets &+= UInt64(count)
    counts.bytes &+= UInt64(byteCount)
    return (Int(count), other)
  }

  /// Takes any response, and hands over the frame that is complete with it.
  ///
  /// - Returns: how many that were.
  private mutating func take(
    _ response: NetIfRxResponse, in slot: UInt16, _ body: (borrowing NetFrontFrame) -> Void
  ) throws(DeviceError) -> Int {
    guard try take(response, in: slot) else { return 0 }
    if let bounce { bounce.handOver(frame, body) } else { body(frame) }
    counts.count(packetOf: frame.byteCount)
    if frame.metadata.segmentation != nil { segmentedCount &+= 1 }
    endFrame()
    return 1
  }

  /// - Returns: whether a frame is complete now. One that is lost is not, and has been counted.
  private mutating func take(_ response: NetIfRxResponse, in slot: UInt16) throws(DeviceError) -> Bool {
    let page = postedPages[Int(slot)]
    do throws(NetResponseViolation) {
      if extraInfoFollows {
        extraInfoFollows = try extraInfos.take(NetIfExtraInfo(response), under: agreement)
        // Nothing is in it.
        post(page)
        if !extraInfoFollows { apply(extraInfos) }
      } else {
        let fragment = try NetRxFragment(parsing: response, in: slot, under: agreement)
        if !fragmentFollows {
          extraInfoFollows = fragment.hasExtraInfo
          frame.metadata.checksum = fragment.checksum
        }
        fragmentFollows = fragment.hasMore
        add(fragment, in: page)
      }
    } catch { throw .protocolViolation("\(error)") }
    guard !extraInfoFollows, !fragmentFollows else { return false }
    if !frameIsLost, frame.byteCount >= NetIf.headerByteCount { return true }
    counts.errors &+= 1
    endFrame()
    return false
  }

  /// The frame's extra infos are all there: what they say holds for all of it.
  private mutating func apply(_ infos: NetRxExtraInfos) {
    extraInfos = NetRxExtraInfos()
    if frameIsLost { return }
    guard !infos.isFaulty, frame.setHeadroom(infos.headroomByteCount, before: firstOffset) else {
      frameIsLost = true
      postHeldPages()
      return
    }
    frame.metadata.hash = infos.hash
    frame.metadata.segmentation = infos.segmentation
    if infos.segmentation != nil, frame.metadata.checksum != .blank {
      frame.metadata.checksum = .blank
      checksumFixups &+= 1
    }
  }

  /// The last slot of a frame has come, and its pages are free.
  private mutating func endFrame() {
    postHeldPages()
    frameIsLost = false
  }

  /// A frame that has failed in one slot, or gets longer than any may be, is lost; its other slots are passed over.
  private mutating func add(_ fragment: NetRxFragment, in page: UInt16) {
    let bytes = fragment.isFailed ? nil : frame.part(of: pages[page].bytes, fragment)
    guard let bytes, !frameIsLost, frame.fragmentCount < NetIf.maxFragmentCount,
      frame.byteCount + bytes.count <= NetIf.maxFrameByteCount
    else {
      frameIsLost = true
      postHeldPages()
      post(page)
      return
    }
    if frame.fragmentCount == 0 {
      (firstPage, firstOffset) = (page, fragment.offset)
    } else {
      otherPieces.append(bytes)
      otherPages.append(page)
    }
    frame.append(bytes)
  }

  private mutating func postHeldPages() {
    if frame.fragmentCount > 0 { post(firstPage) }
    if frame.fragmentCount > 1 {
      for index in 0..<otherPages.count { post(otherPages[index]) }
      otherPages.removeAll()
      otherPieces.removeAll()
    }
    frame.removeAll()
  }

  /// Whether a response is there.
  var hasWork: Bool { ring.hasUnconsumed() }

  @inline(__always) private mutating func hasResponses(_ looks: Bool) throws(DeviceError) -> Bool {
    do throws(RingViolation) { return looks ? try ring.available() > 0 : try ring.finalCheck() } catch {
      throw .protocolViolation("\(NetRingViolation(.rx, error))")
    }
  }
}
