import NetIf
import Synchronization

/// A card's other end in this machine's own network: a TAP device.
///
/// When somebody removes the interface, the card's link goes down; what the guest sends is dropped and counted.
public final class TapEnd: NetworkEnd {
  private let interface: TapInterface
  private let drops = Atomic<UInt64>(0)

  public init(_ interface: TapInterface) { self.interface = interface }

  /// Frames from the guest that the interface did not take: it was down, full, or gone.
  public var dropCount: UInt64 { drops.load(ordering: .relaxed) }

  public func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
    for index in frames.indices where !interface.send(frames[index].bytes) {
      drops.add(1, ordering: .relaxed)
    }
  }

  public func give(to guest: inout FrameQueue) {
    while guest.hasRoom, guest.put(fill: interface.receive(into:)) {}
  }

  /// A removed interface's is readable for ever.
  public var wakeDescriptor: CInt? { interface.isGone ? nil : interface.descriptor }
  public var hasCarrier: Bool { !interface.isGone }
}
