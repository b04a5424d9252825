import BlkIf
import TestSupport
import XenRing

/// One ring of a ``RawBlkFrontend``, in either layout, with the event channel that goes with it.
final class RawBlkRing {
  private let layout: BlkProtocol
  private let pages: GrantedPages
  private var wide: FrontRing<BlkIfRequest, BlkIfResponse>?
  private var narrow: FrontRing<BlkIfX86_32Request, BlkIfX86_32Response>?
  private(set) var channel: EventChannel

  init(_ pages: consuming GrantedPages, as layout: BlkProtocol, channel: EventChannel) {
    self.pages = pages
    (self.layout, self.channel) = (layout, channel)
    begin(at: .zero)
  }

  /// Makes it a fresh ring whose indices start there.
  func begin(at index: RingIndex) {
    // Safe: the pages are ours as long as the ring is.
    let region = unsafe SharedRegion(baseAddress: bytes.baseAddress, byteCount: bytes.count, owner: Borrowed())
    switch layout {
    case .x86_32:
      let ring = FrontRing<BlkIfX86_32Request, BlkIfX86_32Response>(initialising: region, at: index)
      entryCount = ring.entryCount
      narrow = consume ring
    case .x86_64:
      let ring = FrontRing<BlkIfRequest, BlkIfResponse>(initialising: region, at: index)
      entryCount = ring.entryCount
      wide = consume ring
    }
    freeCount = entryCount
  }

  /// Ends nothing: its pages' owner does.
  private final class Borrowed: SharedRegionOwner {
    func endRegion(at baseAddress: UnsafeMutableRawPointer, byteCount: Int) {}
  }

  var references: [GrantReference] { pages.references }
  var bytes: SharedBytes { pages.bytes }
  private(set) var entryCount = 0
  private(set) var freeCount = 0

  func put(_ request: BlkIfRequest) {
    freeCount -= 1
    switch layout {
    case .x86_32: narrow!.put(BlkIfX86_32Request(request))
    case .x86_64: wide!.put(request)
    }
  }

  func push() -> Bool {
    let notify =
      switch layout {
      case .x86_32: narrow!.pushAndCheckNotify()
      case .x86_64: wide!.pushAndCheckNotify()
      }
    if notify { channel.notify() }
    return notify
  }

  func responses() throws -> [BlkIfResponse] {
    var responses: [BlkIfResponse] = []
    channel.take()
    switch layout {
    case .x86_32:
      while try narrow!.finalCheck() { while let response = narrow!.next() { responses.append(response.native) } }
    case .x86_64: while try wide!.finalCheck() { while let response = wide!.next() { responses.append(response) } }
    }
    channel.rearm()
    freeCount += responses.count
    return responses
  }
}

/// A segment as tests name it: a data page, and the first and last sector in it.
typealias RawSegment = (page: Int, first: UInt8, last: UInt8)

final class RawBlkFrontend: RawFrontend {
  private let layout: BlkProtocol
  /// Nil leaves `ring-page-order` out.
  private let ringPageOrder: Int?
  private let queueCount: Int
  private let isPersistent: Bool
  private let readOnlyPageCount: Int
  private(set) var rings: [RawBlkRing] = []
  /// Writes `ring-ref0` for a ring of one page.
  var renamesRingReference = false
  private var readOnlyPages: GrantedPages?
  private(set) var readOnlyReferences: [GrantReference] = []

  init(
    layout: BlkProtocol = .native, ringPageOrder: Int? = nil, queueCount: Int = 1, isPersistent: Bool = false,
    dataPageCount: Int = 16, readOnlyPageCount: Int = 0
  ) {
    (self.layout, self.ringPageOrder, self.queueCount) = (layout, ringPageOrder, queueCount)
    (self.isPersistent, self.readOnlyPageCount) = (isPersistent, readOnlyPageCount)
    super.init(type: "vbd", publishedState: .initialised, dataPageCount: dataPageCount)
  }

  override func shareRings(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    var entries = [StoreEntry("protocol", layout.rawValue)]
    if let ringPageOrder { entries.append(StoreEntry("ring-page-order", ringPageOrder)) }
    if queueCount > 1 { entries.append(StoreEntry("multi-queue-num-queues", queueCount)) }
    if isPersistent { entries.append(StoreEntry("feature-persistent", true)) }
    if readOnlyPageCount > 0 {
      let pages = try device.share(pageCount: readOnlyPageCount, writable: false)
      readOnlyReferences = pages.references
      readOnlyPages = consume pages
    }
    // Those of an earlier life, when nobody has released it.
    rings = []
    for number in 0..<queueCount {
      let directory = queueCount > 1 ? "queue-\(number)/" : ""
      let ring = RawBlkRing(
        try device.share(pageCount: 1 << (ringPageOrder ?? 0)), as: layout,
        channel: try device.allocateEventChannel())
      for (page, reference) in ring.references.enumerated() {
        let key = (ringPageOrder ?? 0) > 0 || renamesRingReference ? "ring-ref\(page)" : "ring-ref"
        entries.append(StoreEntry(directory + key, reference.rawValue))
      }
      entries.append(StoreEntry(directory + "event-channel", ring.channel.port.rawValue))
      rings.append(ring)
    }
    return entries
  }

  override func dropRings() {
    rings = []
    readOnlyPages = nil
  }

  /// The data page `number`'s bytes from sector `sector` of it on.
  func bytes(page: Int, sector: Int, count: Int) -> SharedBytes {
    bytes(from: page * xenPageSize + sector * 512, count: count)
  }

  func descriptor(_ segment: RawSegment) -> BlkIfSegment {
    BlkIfSegment(gref: references[segment.page], firstSector: segment.first, lastSector: segment.last)
  }

  func direct(_ operation: UInt8, sector: UInt64 = 0, _ segments: [RawSegment], id: UInt64 = 1) -> BlkIfRequest {
    var request = BlkIfRequest(
      operation: operation, segmentCount: UInt8(segments.count), id: id, sectorNumber: sector)
    for (index, segment) in segments.enumerated() { request.segments[index] = descriptor(segment) }
    return request
  }

  /// Describes the segments in the data pages from `descriptorPage` on, and asks for them.
  func indirect(
    _ operation: UInt8, sector: UInt64 = 0, _ segments: [RawSegment], in descriptorPage: Int, id: UInt64 = 1
  ) -> BlkIfRequest {
    for (index, segment) in segments.enumerated() { describe(segment, at: index, in: descriptorPage) }
    let pageCount = (segments.count + BlkIf.segmentsPerIndirectPage - 1) / BlkIf.segmentsPerIndirectPage
    var pages = InlineArray<8, UInt32>(repeating: 0)
    for page in 0..<min(pageCount, 8) { pages[page] = references[descriptorPage + page].rawValue }
    return BlkIfRequest(
      BlkIfIndirectRequest(
        indirectOperation: operation, segmentCount: UInt16(segments.count), id: id, sectorNumber: sector,
        references: pages))
  }

  /// Writes one segment's descriptor.
  func describe(_ segment: RawSegment, at index: Int, in descriptorPage: Int) {
    describe(descriptor(segment), at: index, in: descriptorPage)
  }

  func describe(_ descriptor: BlkIfSegment, at index: Int, in descriptorPage: Int) {
    let bytes = bytes(from: descriptorPage * xenPageSize + index * 8, count: 8)
    bytes.scribble(descriptor.gref, at: 0)
    bytes.scribble(UInt32(descriptor.firstSector) | UInt32(descriptor.lastSector) << 8, at: 4)
  }

  func put(_ request: BlkIfRequest, queue: Int = 0) { rings[queue].put(request) }

  /// - Returns: whether the backend had asked to be woken, by one of its rings.
  @discardableResult func push() -> Bool {
    var notified = false
    for ring in rings where ring.push() { notified = true }
    return notified
  }

  /// What the backend has answered since the last call.
  func responses() throws -> [BlkIfResponse] {
    var responses: [BlkIfResponse] = []
    for ring in rings { responses += try ring.responses() }
    return responses
  }

  /// Writes one of the shared page's words behind the ring's back, and wakes the backend.
  func scribble(_ value: UInt32, at offset: Int, queue: Int = 0) {
    rings[queue].bytes.scribble(value, at: offset)
    rings[queue].channel.notify()
  }
}

final class RawBlkBackend: RawBackend {
  private var ring: BackRing<BlkIfRequest, BlkIfResponse>?
  private var ringBytes: SharedBytes?

  init() { super.init(type: "vbd") }

  override func mapRings(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let region = try mapRing("ring-ref", of: device)
    ringBytes = region.bytes
    ring = BackRing(attaching: region)
    return BlockGeometry(sectorCount: 64).entries
  }

  override func dropRings() {
    ring = nil
    ringBytes = nil
  }

  /// Takes what the frontend has put.
  func requests() throws -> [BlkIfRequest] { try takeAll(&ring) }

  /// - Returns: whether the frontend had asked to be woken for it.
  @discardableResult func answer(_ response: BlkIfResponse) -> Bool { put(response, on: &ring) }

  /// Writes the response producer behind the ring's back, and wakes the frontend.
  func scribbleProducer(_ value: UInt32) {
    ringBytes!.scribble(value, at: 8)
    channel!.notify()
  }
}
