import Testing
import XenLoopback
import XenPlatform

/// What a domain finds after it was suspended and resumed.
struct SuspendTests {
  private let loopback = Loopback()
  private let guest: LoopbackDomain
  private let other: LoopbackDomain

  init() {
    guest = loopback.addDomain()
    other = loopback.addDomain()
  }

  @Test func whatWasSharedIsItsOwnMemoryAndNobodyElses() throws {
    let shared = try guest.grants.share(pageCount: 2, with: other.domain, writable: true)
    shared.bytes.slice(from: 0, count: 1).copy(from: [7].span)
    let mapped = try other.grants.map(shared.references, of: guest.domain, writable: true)
    guest.suspendAndResume()
    #expect(shared.bytes.slice(from: 0, count: 1).copied() == [7])
    shared.bytes.slice(from: 0, count: 1).copy(from: [8].span)
    #expect(mapped.bytes.slice(from: 0, count: 1).copied() == [7])
    let references = shared.references
    #expect(throws: GrantError.self) { _ = try other.grants.map(references, of: guest.domain, writable: true) }
    #expect(loopback.grantCounts.sharedPages == 0 && loopback.grantCounts.orphanedPages == 2)
    _ = consume mapped
    #expect(loopback.grantCounts.orphanedPages == 0)
    _ = consume shared
    #expect(loopback.grantCounts.quarantinedPages == 0)
  }

  @Test func allItsPagesCanBeSharedAnew() throws {
    let limit = guest.sharedPageLimit
    let before = try guest.grants.share(pageCount: limit, with: other.domain, writable: true)
    guest.suspendAndResume()
    let after = try guest.grants.share(pageCount: limit, with: other.domain, writable: true)
    let mapped = try other.grants.map([after.references[0]], of: guest.domain, writable: true)
    after.bytes.slice(from: 0, count: 1).copy(from: [9].span)
    #expect(mapped.bytes.slice(from: 0, count: 1).copied() == [9])
    _ = consume before
    #expect(loopback.grantCounts.sharedPages == limit)
    _ = consume mapped
    _ = consume after
  }

  @Test func portsAreGoneAndNewOnesCanBeBound() throws {
    let (mine, theirs) = (try guest.openEventChannels(), try other.openEventChannels())
    let port = try mine.allocateUnbound(for: other.domain)
    let bound = try theirs.bindInterdomain(to: guest.domain, port: port)
    while let pending = theirs.nextPending() { theirs.unmask(pending) }
    guest.suspendAndResume()
    mine.notify(port)
    theirs.notify(bound)
    #expect(theirs.nextPending() == nil && mine.nextPending() == nil)
    let next = try mine.allocateUnbound(for: other.domain)
    #expect(next != port)
    let again = try theirs.bindInterdomain(to: guest.domain, port: next)
    theirs.notify(again)
    #expect(mine.nextPending() == next)
  }

  @Test func everyProcessOfTheDomainIsConcernedAndNoOtherDomain() throws {
    let second = loopback.addProcess(in: guest.domain)
    let one = try second.grants.share(pageCount: 1, with: other.domain, writable: true)
    let two = try other.grants.share(pageCount: 1, with: guest.domain, writable: true)
    guest.suspendAndResume()
    #expect(loopback.grantCounts.sharedPages == 1 && !second.isKilled && !guest.isKilled)
    _ = consume one
    _ = consume two
  }

  @Test func watchesStay() throws {
    let store = try guest.openXenstore()
    try store.watch("device", token: "t")
    while store.nextWatchEvent() != nil {}
    guest.suspendAndResume()
    try store.write("device/vbd", Array("x".utf8), in: nil)
    #expect(store.nextWatchEvent()?.path == "device/vbd")
  }
}
