import XenPlatform

/// The event channels of a disk's queues, one each. They are on one handle, since one thread uses them all.
struct BlkFrontEvents {
  private let handle: any EventChannels
  private let otherDomain: DomainID
  private(set) var ports: [EventChannelPort] = []
  /// Of those whose event has been taken and whose work is not finished.
  private var masked: [EventChannelPort] = []

  init(_ device: XenbusDevice) throws(DeviceError) {
    do throws(EventChannelError) { handle = try device.platform.openEventChannels() } catch {
      throw .eventChannel(error)
    }
    otherDomain = device.otherDomain
  }

  /// A channel for one queue more, which the backend may bind to.
  mutating func add() throws(DeviceError) {
    do throws(EventChannelError) { ports.append(try handle.allocateUnbound(for: otherDomain)) } catch {
      throw .eventChannel(error)
    }
    masked.reserveCapacity(ports.count)
  }

  /// Readable when an event has come.
  var descriptor: CInt { handle.descriptor }

  /// Wakes the backend's queue of this number.
  func notify(_ number: Int) { handle.notify(ports[number]) }

  /// Takes the events that have come. No other comes from their channels before ``rearm()``.
  @inline(__always) mutating func take() { while let port = handle.nextPending() { masked.append(port) } }

  /// The work that the events asked for is done: lets the next ones in.
  @inline(__always) mutating func rearm() {
    guard !masked.isEmpty else { return }
    for index in masked.indices { handle.unmask(masked[index]) }
    masked.removeAll(keepingCapacity: true)
  }
}
