import XenPlatform

/// The event channels of a disk's queues, one each. They are on one handle, since one thread uses them all.
struct BlkFrontEvents {
  private let handle: any EventChannels
  private let otherDomain: DomainID
  private(set) var ports: [EventChannelPort] = []
  /// A bit for each whose event has been taken and whose work is not finished: there are 64 at most.
  private var masked: UInt64 = 0

  init(_ device: XenbusDevice) throws(DeviceError) {
    do throws(EventChannelError) { handle = try device.platform.openEventChannels() } catch {
      throw .eventChannel(error)
    }
    otherDomain = device.otherDomain
  }

  /// A channel for one queue more, which the backend may bind to.
  mutating func add() throws(DeviceError) {
    precondition(ports.count < UInt64.bitWidth, "a bit for each")
    do throws(EventChannelError) { ports.append(try handle.allocateUnbound(for: otherDomain)) } catch {
      throw .eventChannel(error)
    }
  }

  /// Readable when an event has come.
  var descriptor: CInt { handle.descriptor }

  /// Wakes the backend's queue of this number.
  func notify(_ number: Int) { handle.notify(ports[number]) }

  /// Takes the events that have come. No other comes from their channels before ``rearm()``.
  @inline(__always) mutating func take() {
    while let port = handle.nextPending() {
      if let number = ports.firstIndex(of: port) { masked |= 1 << UInt64(number) }
    }
  }

  /// The work that the events asked for is done: lets the next ones in.
  @inline(__always) mutating func rearm() {
    while masked != 0 {
      handle.unmask(ports[masked.trailingZeroBitCount])
      masked &= masked - 1
    }
  }
}
