import XenPlatform

/// Which features an end of a card offers, and uses where the other end offers them too (io/netif.h). All but what a
/// program switches off.
public struct NetFeatures: Hashable, Sendable {
  /// An event channel for each ring in place of one for both (`feature-split-event-channels`).
  public var splitEventChannels: Bool
  /// Packets of several slots, and so of more than a page (`feature-sg`).
  public var scatterGather: Bool

  /// What is taken from the other end unfinished, as far as what is behind our end takes it, and what a frontend sends so where the
  /// backend takes it. A backend gives its guest whatever that takes.
  public var offloads = NetOffloads.all
  /// How many queues at most: what a backend offers (`multi-queue-max-queues`), and what a frontend uses of that
  /// (`multi-queue-num-queues`). 1 to 64. Each costs a frontend two rings and the pages of both.
  public var maxQueueCount: Int
  /// The frontend says which groups of receivers it listens to (`feature-multicast-control`,
  /// `feature-dynamic-multicast-control`).
  public var multicastControl = true
  /// A ring of its own for settings: hashing, and static grants (`feature-ctrl-ring`).
  public var controlRing = true
  /// The frontend has the backend map the pages of its queues once, and the backend copies them as memory in place of asking
  /// the hypervisor each time (io/netif.h, "Static Grants"). Needs the control ring. Off unless switched on: no other
  /// driver is known to speak it, and each page stays mapped as long as the card is connected.
  public var staticGrants = false

  /// All of them, but with these as given.
  public init(splitEventChannels: Bool = true, scatterGather: Bool = true, maxQueueCount: Int = 1) {
    self.splitEventChannels = splitEventChannels
    self.scatterGather = scatterGather
    self.maxQueueCount = maxQueueCount
  }
}

extension XenbusDevice {
  /// Event channels that the other end may bind to, on a handle of their own.
  public func allocateEventChannels(split: Bool) throws(DeviceError) -> EventChannelPair {
    do throws(EventChannelError) {
      let handle = try platform.openEventChannels()
      let tx = try handle.allocateUnbound(for: otherDomain)
      let rx = split ? try handle.allocateUnbound(for: otherDomain) : nil
      return EventChannelPair(tx: tx, rx: rx, on: handle)
    } catch { throw .eventChannel(error) }
  }

  /// Event channels bound to those that the other end allocated, on a handle of their own.
  ///
  /// - Parameter rx: nil when one serves both rings.
  public func bindEventChannels(tx: EventChannelPort, rx: EventChannelPort?) throws(DeviceError) -> EventChannelPair {
    do throws(EventChannelError) {
      let handle = try platform.openEventChannels()
      let boundTx = try handle.bindInterdomain(to: otherDomain, port: tx)
      var boundRx: EventChannelPort?
      if let rx { boundRx = try handle.bindInterdomain(to: otherDomain, port: rx) }
      return EventChannelPair(tx: boundTx, rx: boundRx, on: handle)
    } catch { throw .eventChannel(error) }
  }
}
