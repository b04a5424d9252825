import NetIf

/// A transmission through a ``NetFrontCard``, or something that is asked of its device.
struct NetFrontCall: BusCall {
  typealias Failure = NetFrontError

  let id: UInt64
  let batch: NetFrameBatch
  let continuation: CheckedContinuation<[NetFrontRefusal], any Error>
  /// Is done at once.
  var setting: (@Sendable (NetFrontDevice) throws(NetFrontError) -> Void)?
}

/// What a card's thread shows of it.
struct NetFrontFacts: Sendable {
  var macAddress: MACAddress?
  var mtu = 0
  var hasCarrier = false
  var negotiation = Negotiation()
  var offloads: NetOffloads = []
  var statistics = NetStatistics()
  var queueStatistics: [NetStatistics] = []
}

extension NetFrontError: BusCallError {}

/// The calls of a ``NetFrontCard`` on their way through its device; it lives on the card's thread.
final class NetFrontCalls: BusThreadClient {
  private let device: NetFrontDevice
  private var mail: BusMail<NetFrontCall, NetFrontFacts>
  private let inbox: NetFrontInbox
  /// In their order; how many frames of the first one have been put or refused, and which were refused.
  private var calls: [NetFrontCall] = []
  private var putCount = 0
  private var refusals: [NetFrontRefusal] = []
  private var arrived = NetFrameBatch()
  private var isGone = false

  init(_ device: NetFrontDevice, _ mailbox: BusMailbox<NetFrontCall, NetFrontFacts>, _ inbox: NetFrontInbox) {
    (self.device, mail, self.inbox) = (device, BusMail(mailbox), inbox)
  }

  var workCount: UInt64? { device.workCount }

  var isIdle: Bool { calls.isEmpty && !mail.awaitsConnection && device.inFlightCount == 0 }

  var hasWork: Bool { device.hasWork }

  func appendDescriptors(to list: inout [CInt]) { if let descriptor = device.descriptor { list.append(descriptor) } }

  func poll(_ bus: Bus, now: Uptime, looks: Bool) -> PollOutcome {
    // A local, since the device's closure must not reach into us while we are in use.
    var batch = NetFrameBatch()
    swap(&batch, &arrived)
    device.poll(now: now, looks: looks) { batch.append($0) }
    // Whoever is told of frames or of the connection looks at what the card has counted and agreed on.
    if !batch.isEmpty {
      show()
      inbox.deliver(&batch)
    }
    swap(&batch, &arrived)
    mail.take({ admit($0) }, cancel: { cancel($0) })
    if mail.awaitsConnection, device.isConnected { show() }
    let deadline = mail.answerConnection(isConnected: device.isConnected, bus, now: now)
    noteWhetherGone(!device.isConnected && bus.isEmpty && !mail.awaitsConnection)
    if mail.isClosed || isGone { failAll(.notConnected) }
    putFrames()
    device.push()
    show()
    let refill = device.nextPoll
    guard let earliest = deadline ?? refill else { return .idle }
    return .idleUntil(min(earliest, refill ?? earliest))
  }

  /// The toolstack has removed the device; it may make another one in its place.
  private func noteWhetherGone(_ isGone: Bool) {
    guard isGone != self.isGone else { return }
    self.isGone = isGone
    inbox.setGone(isGone)
  }

  private func admit(_ call: NetFrontCall) {
    guard let setting = call.setting else {
      calls.append(call)
      return
    }
    do throws(NetFrontError) {
      try setting(device)
      call.continuation.resume(returning: [])
    } catch { call.continuation.resume(throwing: error) }
  }

  private func show() {
    mail.show { facts in
      facts.statistics = device.statistics
      device.copyQueueStatistics(to: &facts.queueStatistics)
      facts.offloads = device.offloads
      facts.hasCarrier = device.isConnected && device.hasCarrier
      // What the last connection agreed on stays while there is none.
      guard device.isConnected else { return }
      (facts.macAddress, facts.mtu) = (device.macAddress, device.mtu ?? 0)
      // Mostly the same array, which is seen at once.
      if facts.negotiation != device.negotiation { facts.negotiation = device.negotiation }
    }
  }

  /// One that has ended meanwhile is in nobody's way.
  private func cancel(_ id: UInt64) {
    guard let place = calls.firstIndex(where: { $0.id == id }) else { return }
    if place == 0 { forgetFirst() }
    calls.remove(at: place).continuation.resume(throwing: CancellationError())
  }

  // MARK: Frames

  /// Puts frames of the calls in their order until the ring or the pool is full.
  private func putFrames() {
    guard device.isConnected else { return }
    var endedCount = 0
    while endedCount < calls.count, put(calls[endedCount].batch) {
      calls[endedCount].continuation.resume(returning: refusals)
      endedCount += 1
      forgetFirst()
    }
    if endedCount > 0 { calls.removeSubrange(..<endedCount) }
  }

  /// - Returns: false when the ring or the pool is full and the first call's batch has frames left.
  private func put(_ batch: NetFrameBatch) -> Bool {
    while putCount < batch.count {
      do throws(NetFrontError) { try device.send(batch[putCount].span, batch.metadata(at: putCount)) } catch {
        if case .busy = error { return false }
        refusals.append(NetFrontRefusal(index: putCount, error: error))
      }
      putCount += 1
    }
    return true
  }

  private func forgetFirst() {
    putCount = 0
    // Mostly there are none, and nothing is to be let go of.
    if !refusals.isEmpty { refusals = [] }
  }

  private func failAll(_ error: NetFrontError) {
    for call in calls { call.continuation.resume(throwing: error) }
    calls.removeAll()
    forgetFirst()
  }

  func ended() {
    mail.takeLast({ admit($0) }, cancel: { cancel($0) })
    failAll(.notConnected)
    show()
    inbox.close()
    mail.setEnded()
  }
}
