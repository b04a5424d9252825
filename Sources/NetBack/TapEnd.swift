import NetIf
import Synchronization

/// A card's other end in this machine's own network: a TAP device.
///
/// The machine takes packets that are not finished, and gives such where the guest takes them. Where the device may have
/// several queues (``TapInterface/isMultiQueue``) each of the card's has one of them; elsewhere the card's queues share it.
///
/// When somebody removes the interface, the card's link goes down; what the guest sends is dropped and counted.
public final class TapEnd: NetworkEnd {
  /// What all queues have counted together.
  private final class Counts: Sendable {
    let drops = Atomic<UInt64>(0)
    let segmentedToMachine = Atomic<UInt64>(0)
    let segmentedToGuest = Atomic<UInt64>(0)
  }

  private let interface: TapInterface
  private let queue: TapQueue
  private let counts: Counts

  public convenience init(_ interface: TapInterface) { self.init(interface, interface.first, Counts()) }

  private init(_ interface: TapInterface, _ queue: TapQueue, _ counts: Counts) {
    (self.interface, self.queue, self.counts) = (interface, queue, counts)
  }

  /// Frames from the guest that the interface did not take: it was down, full, or gone, or they were not what they were to
  /// be finished as.
  public var dropCount: UInt64 { counts.drops.load(ordering: .relaxed) }

  /// Packets that went through unfinished, to be cut into segments: from the guest, and to it.
  public var segmentedCounts: (fromGuest: UInt64, toGuest: UInt64) {
    (counts.segmentedToMachine.load(ordering: .relaxed), counts.segmentedToGuest.load(ordering: .relaxed))
  }

  public var offloads: NetOffloads { .all }

  public func ends(forQueues queueCount: Int, guestOffloads: NetOffloads) throws(DeviceError) -> [any NetworkEnd] {
    // What is gone has neither queues nor anything to say.
    guard !interface.isGone else { return Array(repeating: self, count: queueCount) }
    var ends: [any NetworkEnd] = [self]
    do throws(TapError) {
      try interface.setOffloads(guestOffloads)
      guard interface.isMultiQueue else { return Array(repeating: self, count: queueCount) }
      for _ in 1..<max(queueCount, 1) { ends.append(TapEnd(interface, try interface.makeQueue(), counts)) }
    } catch { throw .resource(error.description) }
    return ends
  }

  public func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
    var (dropCount, segmentedCount) = (UInt64(0), UInt64(0))
    for index in frames.indices {
      let frame = frames[index]
      if !queue.send(frame.bytes, frame.metadata) {
        dropCount += 1
      } else if frame.metadata.segmentation != nil {
        segmentedCount += 1
      }
    }
    if dropCount > 0 { counts.drops.add(dropCount, ordering: .relaxed) }
    if segmentedCount > 0 { counts.segmentedToMachine.add(segmentedCount, ordering: .relaxed) }
  }

  public func give(to guest: inout FrameQueue) {
    var segmentedCount: UInt64 = 0
    while guest.hasRoom {
      var isSegmented = false
      let isPut = guest.put(fill: { buffer, metadata in
        let byteCount = queue.receive(into: buffer, &metadata)
        isSegmented = metadata.segmentation != nil
        return byteCount
      })
      guard isPut else { break }
      if isSegmented { segmentedCount += 1 }
    }
    if segmentedCount > 0 { counts.segmentedToGuest.add(segmentedCount, ordering: .relaxed) }
  }

  /// A removed interface's is readable for ever.
  public var wakeDescriptor: CInt? { queue.isGone ? nil : queue.descriptor }
  public var hasCarrier: Bool { !queue.isGone }
}
