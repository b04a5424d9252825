import NetIf

/// What a task asks of a card's thread.
struct NetFrontCall: Sendable {
  enum Kind: Sendable {
    case connection(before: Uptime)
    case transmission(NetFrameBatch)
  }

  let id: UInt64
  let kind: Kind
  let continuation: CheckedContinuation<Void, any Error>
}

/// What a card's thread shows of it.
struct NetFrontFacts: Sendable {
  var macAddress: MACAddress?
  var mtu = 0
  var hasCarrier = false
  var negotiation = Negotiation()
}

/// The calls of a ``NetFrontCard`` on their way through its device; it lives on the card's thread.
final class NetFrontCalls: BusThreadClient {
  private let device: NetFrontDevice
  private let mailbox: NetFrontMailbox
  /// Transmissions in their order, and how many frames of the first one have been put.
  private var calls: [NetFrontCall] = []
  private var putCount = 0
  private var connecting: [NetFrontCall] = []
  /// Exchanged with the mailbox's.
  private var newCalls: [NetFrontCall] = []
  private var newCancelledIDs: [UInt64] = []
  private var arrived = NetFrameBatch()
  private var isClosed = false
  private var wasConnected = false

  init(_ device: NetFrontDevice, _ mailbox: NetFrontMailbox) { (self.device, self.mailbox) = (device, mailbox) }

  var isIdle: Bool { calls.isEmpty && connecting.isEmpty && device.inFlightCount == 0 }

  func appendDescriptors(to list: inout [CInt]) { if let descriptor = device.descriptor { list.append(descriptor) } }

  func poll(_ bus: Bus, now: Uptime) -> PollOutcome {
    // A local, since the device's closure must not reach into us while we are in use.
    var batch = NetFrameBatch()
    swap(&batch, &arrived)
    device.poll(now: now) { batch.append($0) }
    if !batch.isEmpty { mailbox.deliver(&batch) }
    swap(&batch, &arrived)
    takeMail()
    let deadline = answerConnected(bus, now: now)
    if isClosed || (!device.isConnected && bus.isEmpty && connecting.isEmpty) { failAll(.notConnected) }
    putFrames()
    device.push()
    show()
    return [deadline, device.nextPoll].compactMap(\.self).min().map(PollOutcome.idleUntil) ?? .idle
  }

  private func show() {
    mailbox.show(device.statistics, hasCarrier: device.isConnected && device.hasCarrier)
    if device.isConnected, !wasConnected {
      mailbox.show(
        NetFrontFacts(
          macAddress: device.macAddress, mtu: device.mtu ?? 0, hasCarrier: device.hasCarrier,
          negotiation: device.negotiation))
    }
    wasConnected = device.isConnected
  }

  private func takeMail() {
    isClosed = mailbox.take(&newCalls, &newCancelledIDs)
    for call in newCalls {
      if case .connection = call.kind { connecting.append(call) } else { calls.append(call) }
    }
    newCalls.removeAll(keepingCapacity: true)
    for id in newCancelledIDs { cancel(id) }
    newCancelledIDs.removeAll(keepingCapacity: true)
  }

  /// One that has ended meanwhile is in nobody's way.
  private func cancel(_ id: UInt64) {
    if let place = connecting.firstIndex(where: { $0.id == id }) {
      connecting.remove(at: place).continuation.resume(throwing: CancellationError())
    } else if let place = calls.firstIndex(where: { $0.id == id }) {
      if place == 0 { putCount = 0 }
      calls.remove(at: place).continuation.resume(throwing: CancellationError())
    }
  }

  /// Ends the calls that waited for the connection, or whose time is up.
  ///
  /// - Returns: when to look again.
  private func answerConnected(_ bus: Bus, now: Uptime) -> Uptime? {
    guard !connecting.isEmpty else { return nil }
    // Whoever is told looks at what the card agreed on.
    if device.isConnected { show() }
    var waiting: [NetFrontCall] = []
    var earliest: Uptime?
    for call in connecting {
      guard case .connection(let deadline) = call.kind else { continue }
      if device.isConnected {
        call.continuation.resume()
      } else if now >= deadline || isClosed {
        let report = bus.report.isEmpty ? "there is no such device" : bus.report.joined(separator: "; ")
        call.continuation.resume(throwing: NetFrontError.notConnectedInTime(report))
      } else {
        waiting.append(call)
        earliest = min(deadline, earliest ?? deadline)
      }
    }
    connecting = waiting
    return earliest
  }

  // MARK: Frames

  /// Puts frames of the calls in their order until the ring or the pool is full.
  private func putFrames() {
    guard device.isConnected else { return }
    var endedCount = 0
    while endedCount < calls.count {
      let call = calls[endedCount]
      do throws(NetFrontError) {
        guard try put(call) else { break }
        call.continuation.resume()
      } catch { call.continuation.resume(throwing: error) }
      endedCount += 1
      putCount = 0
    }
    if endedCount > 0 { calls.removeSubrange(..<endedCount) }
  }

  /// - Returns: false when the ring or the pool is full and the call has frames left.
  private func put(_ call: NetFrontCall) throws(NetFrontError) -> Bool {
    guard case .transmission(let batch) = call.kind else { return true }
    // Before the first one goes.
    if putCount == 0 { for frame in batch { try device.check(byteCount: frame.count) } }
    while putCount < batch.count {
      let frame = batch[putCount]
      guard device.hasRoom(for: frame.count) else { return false }
      try device.send(frame.span)
      putCount += 1
    }
    return true
  }

  private func failAll(_ error: NetFrontError) {
    for call in calls { call.continuation.resume(throwing: error) }
    calls.removeAll()
    putCount = 0
  }

  func ended() {
    takeMail()
    failAll(.notConnected)
    for call in connecting { call.continuation.resume(throwing: NetFrontError.notConnected) }
    connecting = []
    mailbox.show(device.statistics, hasCarrier: false)
    mailbox.setEnded()
  }
}
