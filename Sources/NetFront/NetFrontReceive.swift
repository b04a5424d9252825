import NetIf
import XenRing

/// The receive ring and its page pool.
///
/// Every page is asked for again as soon as its frame has been handed over, in the next slot of the ring; so a backend has
/// all pages but those of one poll, and of a frame whose last slot has not come. A request's id is its slot.
struct NetFrontReceive: ~Copyable {
  private var ring: FrontRing<NetIfRxRequest, NetIfRxResponse>
  private var pages: NetFrontPages
  private let scatterGather: Bool
  /// The page that stands in each slot.
  private var postedPages: [UInt16]
  private var nextPostedSlot: UInt16 = 0
  /// Where in the ring the next response stands.
  private var nextSlot: UInt16 = 0
  /// As far as it has come, and the pages that its slots have brought; or lost, and then it holds no pages.
  private var frame = NetFrontFrame()
  private var frameIsLost = false
  private var firstPage: UInt16 = 0
  private var otherPages: [UInt16] = []
  private(set) var counts = NetCounts()

  /// Asks for a frame in every page; ``pushAndCheckNotify()`` shows it.
  ///
  /// - Parameter scatterGather: whether the backend may give frames in several slots.
  init(
    ring: consuming FrontRing<NetIfRxRequest, NetIfRxResponse>, pages: consuming NetFrontPages, scatterGather: Bool
  ) {
    precondition(pages.count <= ring.entryCount, "no more pages than slots")
    postedPages = Array(repeating: 0, count: ring.entryCount)
    let count = pages.count
    self.ring = ring
    self.pages = pages
    self.scatterGather = scatterGather
    otherPages.reserveCapacity(NetIf.maxFragmentCount)
    for page in 0..<UInt16(count) { post(page) }
  }

  var ringStatistics: RingStatistics { ring.statistics }

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
    postedPages[Int(nextPostedSlot)] = page
    ring.put(NetIfRxRequest(id: nextPostedSlot, gref: pages[page].reference))
    nextPostedSlot = next(nextPostedSlot)
  }

  private func next(_ slot: UInt16) -> UInt16 { (slot + 1) & UInt16(ring.entryCount - 1) }

  mutating func pushAndCheckNotify() -> Bool { ring.hasUnpushed && ring.pushAndCheckNotify() }

  /// Hands over every frame that is there: at most as many as the ring has slots, since the backend sees the pages that
  /// come back only with the next push. A frame whose last slot has not come waits for it.
  mutating func poll(_ body: (borrowing NetFrontFrame) -> Void) throws(DeviceError) -> Int {
    var received = 0
    while try hasResponses() {
      while let response = ring.next() {
        let slot = nextSlot
        nextSlot = next(slot)
        let fragment = try check(response, in: slot)
        add(fragment, in: postedPages[Int(slot)])
        guard !fragment.hasMore else { continue }
        if isComplete {
          body(frame)
          counts.count(packetOf: frame.byteCount)
          received += 1
        } else {
          counts.errors &+= 1
        }
        endFrame()
      }
    }
    return received
  }

  /// Whether what has come is a frame.
  private var isComplete: Bool { !frameIsLost && frame.byteCount >= NetIf.headerByteCount }

  /// The last slot of a frame has come, and its pages are free.
  private mutating func endFrame() {
    postHeldPages()
    frameIsLost = false
  }

  /// A frame that has failed in one slot, or gets longer than any may be, is lost; its other slots are passed over.
  private mutating func add(_ fragment: NetRxFragment, in page: UInt16) {
    if fragment.isFailed || frame.fragmentCount == NetIf.maxFragmentCount
      || frame.byteCount + fragment.byteCount > NetIf.maxFrameByteCount
    {
      frameIsLost = true
    }
    if frameIsLost {
      postHeldPages()
      post(page)
    } else {
      if frame.fragmentCount == 0 { firstPage = page } else { otherPages.append(page) }
      frame.append(pages[page].bytes.slice(from: fragment.offset, count: fragment.byteCount))
    }
  }

  private mutating func postHeldPages() {
    if frame.fragmentCount > 0 { post(firstPage) }
    if frame.fragmentCount > 1 {
      for index in otherPages.indices { post(otherPages[index]) }
      otherPages.removeAll(keepingCapacity: true)
    }
    frame.removeAll()
  }

  private mutating func hasResponses() throws(DeviceError) -> Bool {
    do throws(RingViolation) { return try ring.finalCheck() } catch {
      throw .protocolViolation("\(NetRingViolation(.rx, error))")
    }
  }

  private func check(_ response: NetIfRxResponse, in slot: UInt16) throws(DeviceError) -> NetRxFragment {
    do throws(NetResponseViolation) {
      return try NetRxFragment(parsing: response, in: slot, scatterGather: scatterGather)
    } catch { throw .protocolViolation("\(error)") }
  }
}
