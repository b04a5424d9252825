import NetIf

/// The event channels of a card's queues, one or two each. They are on one handle, since one thread uses them all.
struct NetFrontEvents {
  private let handle: any EventChannels
  private let otherDomain: DomainID
  private let isSplit: Bool
  /// Of each queue: of the ring for what is sent, and of the other one; the same where one channel serves both.
  private(set) var tx: [EventChannelPort] = []
  private(set) var rx: [EventChannelPort] = []
  /// Of the control ring, where there is one.
  private var control: EventChannelPort?
  /// A bit for each queue's whose event has been taken and whose work is not finished: there are 64 queues at most.
  private var maskedTx: UInt64 = 0
  private var maskedRx: UInt64 = 0
  private var isControlMasked = false

  /// - Parameter isSplit: whether each ring of a queue has a channel of its own.
  init(_ device: XenbusDevice, isSplit: Bool) throws(DeviceError) {
    do throws(EventChannelError) { handle = try device.platform.openEventChannels() } catch {
      throw .eventChannel(error)
    }
    otherDomain = device.otherDomain
    self.isSplit = isSplit
  }

  /// Channels for one queue more, which the backend may bind to.
  mutating func add() throws(DeviceError) {
    precondition(tx.count < UInt64.bitWidth, "a bit for each")
    do throws(EventChannelError) {
      tx.append(try handle.allocateUnbound(for: otherDomain))
      rx.append(isSplit ? try handle.allocateUnbound(for: otherDomain) : tx[tx.count - 1])
    } catch { throw .eventChannel(error) }
  }

  /// A channel for the control ring, which the backend may bind to.
  mutating func addControl() throws(DeviceError) -> EventChannelPort {
    do throws(EventChannelError) {
      let port = try handle.allocateUnbound(for: otherDomain)
      control = port
      return port
    } catch { throw .eventChannel(error) }
  }

  /// Readable when an event has come.
  var descriptor: CInt { handle.descriptor }

  /// Wakes the backend's queue of this number for what is sent.
  func notifyTx(_ number: Int) { handle.notify(tx[number]) }

  /// Wakes the backend's queue of this number for the pages that it may fill.
  func notifyRx(_ number: Int) { handle.notify(rx[number]) }

  /// Wakes whoever serves the control ring.
  func notifyControl() { if let control { handle.notify(control) } }

  /// Wakes every queue of the backend's for everything.
  func notifyAll() {
    for port in tx { handle.notify(port) }
    if isSplit { for port in rx { handle.notify(port) } }
  }

  /// Takes the events that have come. No other comes from their channels before ``rearm()``.
  mutating func take() {
    while !isAllMasked, let port = handle.nextPending() {
      if let number = tx.firstIndex(of: port) {
        maskedTx |= 1 << UInt64(number)
      } else if let number = rx.firstIndex(of: port) {
        maskedRx |= 1 << UInt64(number)
      } else if port == control {
        isControlMasked = true
      }
    }
  }

  /// No other event can come then, and asking would be a system call for nothing.
  private var isAllMasked: Bool {
    maskedTx.nonzeroBitCount == tx.count && (!isSplit || maskedRx.nonzeroBitCount == rx.count)
      && (control == nil || isControlMasked)
  }

  /// The work that the events asked for is done: lets the next ones in.
  mutating func rearm() {
    while maskedTx != 0 {
      handle.unmask(tx[maskedTx.trailingZeroBitCount])
      maskedTx &= maskedTx - 1
    }
    while maskedRx != 0 {
      handle.unmask(rx[maskedRx.trailingZeroBitCount])
      maskedRx &= maskedRx - 1
    }
    if let control, isControlMasked {
      isControlMasked = false
      handle.unmask(control)
    }
  }

  /// The keys of the queue with this number (io/netif.h).
  func entries(_ number: Int, prefix: String) -> [StoreEntry] {
    isSplit
      ? [
        StoreEntry("\(prefix)event-channel-tx", tx[number].rawValue),
        StoreEntry("\(prefix)event-channel-rx", rx[number].rawValue),
      ] : [StoreEntry("\(prefix)event-channel", tx[number].rawValue)]
  }
}
