import NetIf
import XenRing

/// Serves a card's control ring (io/netif.h, "Control ring"), on a thread of its own: no packet waits for it.
///
/// An answer is given when what was asked for holds for all packets that come from then on. A frontend that floods the ring
/// has so many requests done in a millisecond, and no more.
///
/// Sendable: its host polls it from one thread; the bus's thread touches it only before the host starts it and after the
/// host has stopped it.
final class NetBackControl: DataQueue, CustomStringConvertible, @unchecked Sendable {
  /// How many requests are done in one period, and how long that is. To set everything takes eight. One with a list of
  /// grants counts as more, for each page that it may map.
  static let periodCount = 16
  static let periodNanoseconds: UInt64 = 1_000_000

  private var ring: BackRing<NetIfControlRequest, NetIfControlResponse>
  private var channel: EventChannel
  private let grants: any GrantTable
  private let frontend: DomainID
  private let queueCount: Int
  private var configuration = NetHashConfiguration()
  private let steering: NetBackSteering
  /// Of each queue; none where grants are not kept mapped.
  private let grantTables: [NetBackControlGrants]
  /// What a request brings, copied out of the page that it names.
  private let input = PrivatePages(pageCount: 1)
  /// When the period began, and how many requests have been done in it.
  private var periodStart = Uptime(nanoseconds: 0)
  private var doneInPeriod = 0
  private var answeredCount: UInt64 = 0
  private var refusedCount: UInt64 = 0
  /// Why it has stopped by itself.
  private(set) var fault: DeviceError?

  /// - Parameter queueCount: of the connection.
  init(
    ring: consuming BackRing<NetIfControlRequest, NetIfControlResponse>, channel: EventChannel,
    grants: any GrantTable, frontend: DomainID, queueCount: Int, steering: NetBackSteering,
    grantTables: [NetBackControlGrants]
  ) {
    self.ring = ring
    self.channel = channel
    self.grants = grants
    self.frontend = frontend
    self.queueCount = queueCount
    self.steering = steering
    self.grantTables = grantTables
  }

  var descriptors: [CInt] { [channel.descriptor] }

  func poll(now: Uptime, budget: Int, looks: Bool) -> PollOutcome {
    do throws(RingViolation) { return try poll(now, budget) } catch {
      fault = .protocolViolation("\(NetRingViolation(.control, error))")
      return .stopped
    }
  }

  private func poll(_ now: Uptime, _ budget: Int) throws(RingViolation) -> PollOutcome {
    channel.take()
    let periodEnd = Uptime(nanoseconds: periodStart.nanoseconds &+ Self.periodNanoseconds)
    if now >= periodEnd {
      // What was more than a period's is taken from the next ones.
      let periods = (now.nanoseconds - periodStart.nanoseconds) / Self.periodNanoseconds
      let allowed = UInt64(Self.periodCount).multipliedReportingOverflow(by: periods)
      doneInPeriod = allowed.overflow ? 0 : doneInPeriod - Int(min(UInt64(doneInPeriod), allowed.partialValue))
      periodStart = now
    }
    // Events wait until then, too.
    guard doneInPeriod < Self.periodCount else {
      return .idleUntil(Uptime(nanoseconds: periodStart.nanoseconds &+ Self.periodNanoseconds))
    }
    _ = try ring.available()
    let before = configuration
    var taken = 0
    while taken < budget, doneInPeriod < Self.periodCount, let raw = ring.next() {
      taken += 1
      doneInPeriod += 1
      ring.put(answer(raw))
    }
    if configuration != before { steering.set(NetHashSteering(configuration, queueCount: queueCount)) }
    // Only now: an answer says that it holds.
    if ring.hasUnpushed, ring.pushAndCheckNotify() { channel.notify() }
    if taken > 0 { channel.noteWork() }
    if taken == budget { return .more }
    if try ring.finalCheck() { return .more }
    return channel.rearm(at: now, worked: taken > 0).map(PollOutcome.idleUntil) ?? .idle
  }

  private func answer(_ raw: NetIfControlRequest) -> NetIfControlResponse {
    answeredCount &+= 1
    do throws(NetControlFault) {
      let data = try perform(NetControlRequest(parsing: raw))
      return NetIfControlResponse(id: raw.id, type: raw.type, status: NetControlStatus.success.rawValue, data: data)
    } catch {
      refusedCount &+= 1
      return NetIfControlResponse(id: raw.id, type: raw.type, status: error.status.rawValue, data: 0)
    }
  }

  private func perform(_ request: NetControlRequest) throws(NetControlFault) -> UInt32 {
    var bytes: [UInt8] = []
    if let (reference, byteCount) = request.input {
      let local = input.bytes.slice(from: 0, count: byteCount)
      try copy(.fromGrant, local, reference)
      bytes = local.copied()
    }
    switch request {
    case .getGrantMappingSize(let queue):
      _ = try grantTable(of: queue)
      return UInt32(NetBackControlGrants.maxCount)
    case .addGrantMapping(let queue, _, let entryCount):
      doneInPeriod += entryCount / Self.entriesInRequest
      try grantTable(of: queue).add(NetIfGrantMapping.list(bytes.span))
      return 0
    case .removeGrantMapping(let queue, let reference, let entryCount):
      doneInPeriod += entryCount / Self.entriesInRequest
      return try remove(NetIfGrantMapping.list(bytes.span), from: grantTable(of: queue), answeringIn: reference)
    default: return try configuration.apply(request, input: bytes.span, queueCount: queueCount)
    }
  }

  /// How many entries of a list of grants count as one request.
  private static let entriesInRequest = 32

  private func grantTable(of queue: UInt32) throws(NetControlFault) -> NetBackControlGrants {
    guard !grantTables.isEmpty else { throw .noGrantMapping }
    guard queue < UInt32(grantTables.count) else { throw .noSuchQueue(queue, queueCount: grantTables.count) }
    return grantTables[Int(queue)]
  }

  /// Unmaps what is mapped of a list, whose page is told what becomes of each entry: before, since what cannot be said is not
  /// done.
  private func remove(
    _ list: [NetIfGrantMapping], from table: NetBackControlGrants, answeringIn reference: GrantReference
  ) throws(NetControlFault) -> UInt32 {
    let removal = table.removal(of: list)
    var answered = list
    for (index, status) in removal.statuses.enumerated() { answered[index].status = UInt16(status.rawValue) }
    let bytes = NetIfGrantMapping.bytes(answered)
    let local = input.bytes.slice(from: 0, count: bytes.count)
    local.copy(from: bytes.span)
    try copy(.toGrant, local, reference)
    table.remove(list)
    return UInt32(removal.count)
  }

  /// Copies between memory of ours and the start of a page of the frontend's.
  private func copy(
    _ direction: GrantCopy.Direction, _ local: SharedBytes, _ reference: GrantReference
  ) throws(NetControlFault) {
    var copies = [GrantCopy(direction, local: local, reference: reference, of: frontend, offset: 0)]
    var span = copies.mutableSpan
    grants.copy(&span)
    guard copies[0].status == .okay else { throw .unreadable(reference, copies[0].status) }
  }

  /// One line for the log. Only when nobody polls.
  var description: String {
    "\(answeredCount) control requests answered, \(refusedCount) of them refused; \(ring.dump())"
  }
}

extension NetBackControl {
  /// Serves the control ring that the frontend has published.
  convenience init(
    _ device: XenbusDevice, _ reference: GrantReference, _ eventChannel: EventChannelPort, queueCount: Int,
    steering: NetBackSteering, grantTables: [NetBackControlGrants]
  ) throws(DeviceError) {
    let region = try device.map([reference])
    self.init(
      ring: BackRing(attaching: region), channel: try device.bindEventChannel(to: eventChannel),
      grants: device.platform.grants, frontend: device.otherDomain, queueCount: queueCount, steering: steering,
      grantTables: grantTables)
  }
}
