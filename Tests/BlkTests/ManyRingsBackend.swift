import BlkIf
import TestSupport
import XenRing

/// A backend without manners that maps every ring of its frontend's, of however many pages.
final class ManyRingsBackend: BackendDriver, Backend {
  private final class Queue {
    var ring: BackRing<BlkIfRequest, BlkIfResponse>
    let bytes: SharedBytes
    let channel: EventChannel

    init(_ region: consuming SharedRegion, _ channel: EventChannel) {
      (bytes, self.channel) = (region.bytes, channel)
      ring = BackRing(attaching: region)
    }
  }

  let type = "vbd"
  let negotiation = Negotiation()
  /// What it offers before the frontend publishes anything.
  var offered: [StoreEntry] = []
  /// Keys to write with Connected, besides those of the disk.
  var keys: [StoreEntry] = []
  var geometry = BlockGeometry(sectorCount: 64)
  private(set) var device: XenbusDevice?
  private var queues: [Queue] = []

  func probe(_ device: XenbusDevice) throws(DeviceError) -> any Backend {
    self.device = device
    return self
  }

  func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] { offered }

  func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let count = try device.other.optionalNumber("multi-queue-num-queues", as: Int.self) ?? 1
    let pageCount = 1 << (try device.other.optionalNumber("ring-page-order", as: Int.self) ?? 0)
    for number in 0..<count {
      let prefix = count > 1 ? "queue-\(number)/" : ""
      var references: [GrantReference] = []
      for page in 0..<pageCount {
        let key = "\(prefix)ring-ref\(pageCount > 1 ? "\(page)" : "")"
        references.append(GrantReference(rawValue: try device.other.number(key)))
      }
      let region = try device.map(references)
      let port = EventChannelPort(rawValue: try device.other.number("\(prefix)event-channel"))
      queues.append(Queue(region, try device.bindEventChannel(to: port)))
    }
    return geometry.entries + keys
  }

  func start(_ device: XenbusDevice) {}

  func disconnect(_ device: XenbusDevice) { queues = [] }

  /// Takes what the frontend has put, queue by queue.
  func requests() throws -> [[BlkIfRequest]] {
    var all: [[BlkIfRequest]] = []
    for queue in queues {
      var requests: [BlkIfRequest] = []
      while try queue.ring.finalCheck() { while let request = queue.ring.next() { requests.append(request) } }
      all.append(requests)
    }
    return all
  }

  /// - Returns: whether the frontend had asked to be woken for it.
  @discardableResult func answer(queue number: Int = 0, _ response: BlkIfResponse) -> Bool {
    queues[number].ring.put(response)
    let notifies = queues[number].ring.pushAndCheckNotify()
    if notifies { queues[number].channel.notify() }
    return notifies
  }

  /// Writes the response producer behind the ring's back, and wakes the frontend.
  func scribbleProducer(queue number: Int, _ value: UInt32) {
    queues[number].bytes.scribble(value, at: 8)
    queues[number].channel.notify()
  }

  /// What a granted page of the frontend's holds.
  func bytes(of reference: UInt32) throws -> [UInt8] {
    let region = try device!.map([GrantReference(rawValue: reference)])
    let bytes = region.bytes.copied()
    // Mapped until here.
    _ = consume region
    return bytes
  }
}
