import BlkIf
import TestSupport
import XenRing

final class RawBlkFrontend: RawFrontend {
  private let layout: BlkProtocol
  private var ring: FrontRing<BlkIfRequest, BlkIfResponse>?
  private var ring32: FrontRing<BlkIfX86_32Request, BlkIfX86_32Response>?
  private var ringBytes: SharedBytes?

  init(layout: BlkProtocol = .native) {
    self.layout = layout
    super.init(type: "vbd", publishedState: .initialised)
  }

  override func shareRings(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let pages = try device.share(pageCount: 1)
    let reference = pages.references[0].rawValue
    ringBytes = pages.bytes
    switch layout {
    case .x86_32: ring32 = FrontRing(initialising: pages.takeRegion())
    case .x86_64: ring = FrontRing(initialising: pages.takeRegion())
    }
    return [StoreEntry("ring-ref", reference), StoreEntry("protocol", layout.rawValue)]
  }

  override func dropRings() {
    ring = nil
    ring32 = nil
    ringBytes = nil
  }

  /// The data page `number`'s bytes from sector `sector` of it on.
  func bytes(page: Int, sector: Int, count: Int) -> SharedBytes {
    bytes(from: page * xenPageSize + sector * 512, count: count)
  }

  func put(_ request: BlkIfRequest) {
    switch layout {
    case .x86_32: ring32!.put(BlkIfX86_32Request(request))
    case .x86_64: ring!.put(request)
    }
  }

  func push() {
    let notify =
      switch layout {
      case .x86_32: ring32!.pushAndCheckNotify()
      case .x86_64: ring!.pushAndCheckNotify()
      }
    if notify { channel!.notify() }
  }

  /// What the backend has answered since the last call.
  func responses() throws -> [BlkIfResponse] {
    switch layout {
    case .x86_32: try takeAll(&ring32).map(\.native)
    case .x86_64: try takeAll(&ring)
    }
  }

  /// Writes one of the shared page's words behind the ring's back, and wakes the backend.
  func scribble(_ value: UInt32, at offset: Int) {
    ringBytes!.scribble(value, at: offset)
    channel!.notify()
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

  func answer(_ response: BlkIfResponse) { put(response, on: &ring) }

  /// Writes the response producer behind the ring's back, and wakes the frontend.
  func scribbleProducer(_ value: UInt32) {
    ringBytes!.scribble(value, at: 8)
    channel!.notify()
  }
}
