import XenPlatform

let eventChannelChecks = [
  PlatformCheck("boundPortIsPendingAtOnce") { platform in
    let ends = try Ends(platform)
    try expectDelivery(of: ends.mine, by: ends.binder)
    try expectSilence(of: ends.allocator, "binding")
  },
  PlatformCheck("notifyReachesTheOtherEnd") { platform in
    let ends = try Ends(platform)
    try expectDelivery(of: ends.mine, by: ends.binder)
    ends.binder.unmask(ends.mine)
    for _ in 1...3 {
      ends.binder.notify(ends.mine)
      try expectDelivery(of: ends.theirs, by: ends.allocator)
      ends.allocator.unmask(ends.theirs)
      ends.allocator.notify(ends.theirs)
      try expectDelivery(of: ends.mine, by: ends.binder)
      ends.binder.unmask(ends.mine)
    }
    try expectSilence(of: ends.binder, "what was delivered")
    try expectSilence(of: ends.allocator, "what was delivered")
  },
  PlatformCheck("eventsCoalesceAndWaitForUnmask") { platform in
    let ends = try Ends(platform)
    ends.binder.notify(ends.mine)
    try expectDelivery(of: ends.theirs, by: ends.allocator)
    for _ in 1...5 { ends.binder.notify(ends.mine) }
    try expectSilence(of: ends.allocator, "a masked port")
    ends.allocator.unmask(ends.theirs)
    try expectDelivery(of: ends.theirs, by: ends.allocator)
    ends.allocator.unmask(ends.theirs)
    try expectSilence(of: ends.allocator, "five events in one")
  },
  PlatformCheck("portsOfOneHandleAreToldApart") { platform in
    let allocator = try platform.openEventChannels()
    let binder = try platform.openEventChannels()
    var pairs: [EventChannelPort: EventChannelPort] = [:]
    for _ in 1...3 {
      let theirs = try allocator.allocateUnbound(for: platform.domain)
      pairs[theirs] = try binder.bindInterdomain(to: platform.domain, port: theirs)
    }
    for mine in pairs.values { binder.notify(mine) }
    var delivered: Set<EventChannelPort> = []
    while delivered.count < 3, isReadable(allocator.descriptor, within: patience) {
      if let port = allocator.nextPending() { delivered.insert(port) }
    }
    try expect(delivered, is: Set(pairs.keys), "the set of ports delivered")
  },
  PlatformCheck("portIsBoundOnceByWhomItIsFor") { platform in
    let ends = try Ends(platform)
    try expectRefusedBind(platform, ends.theirs, "a port that is bound")
    try expectRefusedBind(platform, EventChannelPort(rawValue: 100_000), "a port that is not there")
    try expectRefusedBind(platform, EventChannelPort(rawValue: .max), "a port that cannot be")
    let other = DomainID(rawValue: platform.domain.rawValue + 1)
    let foreign = try ends.allocator.allocateUnbound(for: other)
    try expectRefusedBind(platform, foreign, "a port for another domain")
  },
  PlatformCheck("closedEndCanBeBoundAnew") { platform in
    let ends = try Ends(platform)
    try expectDelivery(of: ends.mine, by: ends.binder)
    ends.binder.close(ends.mine)
    // Nobody is there to hear it.
    ends.allocator.notify(ends.theirs)
    let again = try ends.binder.bindInterdomain(to: platform.domain, port: ends.theirs)
    try expectDelivery(of: again, by: ends.binder)
    ends.binder.notify(again)
    try expectDelivery(of: ends.theirs, by: ends.allocator)
    ends.allocator.unmask(ends.theirs)
    // It does not matter which end was allocated and which was bound.
    ends.allocator.close(ends.theirs)
    let anew = try ends.allocator.bindInterdomain(to: platform.domain, port: again)
    try expectDelivery(of: anew, by: ends.allocator)
  },
  PlatformCheck("handleReachesOnlyItsOwnPorts") { platform in
    let ends = try Ends(platform)
    let stranger = try platform.openEventChannels()
    stranger.notify(ends.mine)
    try expectSilence(of: ends.allocator, "a stranger's notify")
    stranger.close(ends.theirs)
    ends.binder.notify(ends.mine)
    try expectDelivery(of: ends.theirs, by: ends.allocator)
    stranger.unmask(ends.theirs)
    ends.binder.notify(ends.mine)
    try expectSilence(of: ends.allocator, "a stranger's unmask")
  },
  PlatformCheck("portNumberUsedAgainLosesNoEvent") { platform in
    // Closed while masked, while pending and while idle: what comes next under the same number starts clean.
    let allocator = try platform.openEventChannels()
    let binder = try platform.openEventChannels()
    for round in 0..<30 {
      let theirs = try allocator.allocateUnbound(for: platform.domain)
      let mine = try binder.bindInterdomain(to: platform.domain, port: theirs)
      binder.notify(mine)
      try expectDelivery(of: theirs, by: allocator)
      if round % 3 == 1 { binder.notify(mine) }
      if round % 3 == 2 { allocator.unmask(theirs) }
      binder.close(mine)
      allocator.close(theirs)
      // What was waiting when they were closed.
      for handle in [allocator, binder] { while handle.nextPending() != nil {} }
    }
  },
  PlatformCheck("handleTakesItsPortsAlong") { platform in
    let allocator = try platform.openEventChannels()
    let theirs = try allocator.allocateUnbound(for: platform.domain)
    do {
      let binder = try platform.openEventChannels()
      _ = try binder.bindInterdomain(to: platform.domain, port: theirs)
    }
    let binder = try platform.openEventChannels()
    let mine = try binder.bindInterdomain(to: platform.domain, port: theirs)
    binder.notify(mine)
    try expectDelivery(of: theirs, by: allocator)
  },
]

/// A channel from this domain to itself, each end on a handle of its own.
private struct Ends {
  let allocator: any EventChannels
  let binder: any EventChannels
  let theirs: EventChannelPort
  let mine: EventChannelPort

  init(_ platform: any Platform) throws {
    allocator = try platform.openEventChannels()
    binder = try platform.openEventChannels()
    theirs = try allocator.allocateUnbound(for: platform.domain)
    mine = try binder.bindInterdomain(to: platform.domain, port: theirs)
  }
}

private func expectDelivery(of port: EventChannelPort, by handle: any EventChannels) throws {
  try expect(isReadable(handle.descriptor, within: patience), "an event makes the descriptor readable")
  try expect(handle.nextPending(), is: port, "the pending port")
}

private func expectSilence(of handle: any EventChannels, _ cause: String) throws {
  let readable = isReadable(handle.descriptor, within: silence)
  // Asked all the same: it must not block.
  try expect(handle.nextPending(), is: nil, "the pending port after \(cause)")
  try expect(!readable, "\(cause) leaves the descriptor unreadable")
}

private func expectRefusedBind(_ platform: any Platform, _ port: EventChannelPort, _ what: String) throws {
  let handle = try platform.openEventChannels()
  do throws(EventChannelError) {
    _ = try handle.bindInterdomain(to: platform.domain, port: port)
  } catch {
    return try expect(error, is: .refused(port, of: platform.domain), "the refusal to bind \(what)")
  }
  throw Nonconformity(description: "binding \(what) is not refused")
}
