import Glibc
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// What one domain may do with the pages of another.
struct GrantTests {
  private let xen = Domains()

  private func copyStatus(_ direction: GrantCopy.Direction, by domain: LoopbackDomain, _ pages: borrowing GrantedPages)
    -> GrantStatus
  {
    let own = PrivatePages(pageCount: 1)
    var copies = [
      GrantCopy(direction, local: own.bytes, reference: pages.references[0], of: xen.one.domain, offset: 0)
    ]
    var span = copies.mutableSpan
    domain.grants.copy(&span)
    return copies[0].status
  }

  @Test func writeThroughAReadOnlyMapFaults() async {
    await #expect(processExitsWith: .signal(SIGSEGV)) {
      let xen = Domains()
      let pages = try xen.one.grants.share(pageCount: 1, with: xen.two.domain, writable: false)
      let mapped = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: false)
      guard mapped.bytes.copied().first == 0 else { exit(EXIT_SUCCESS) }
      mapped.bytes.zero()
    }
  }

  @Test func readOfAnUnmappedPageFaults() async {
    await #expect(processExitsWith: .signal(SIGSEGV)) {
      let xen = Domains()
      let pages = try xen.one.grants.share(pageCount: 1, with: xen.two.domain, writable: true)
      var bytes = pages.bytes
      do {
        let mapped = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: true)
        bytes = mapped.bytes
        guard bytes.copied().first == 0 else { exit(EXIT_SUCCESS) }
      }
      _ = bytes.copied()
    }
  }

  @Test func readOfAPageThatIsSharedNoLongerFaults() async {
    await #expect(processExitsWith: .signal(SIGSEGV)) {
      let xen = Domains()
      var bytes: SharedBytes
      do { bytes = try xen.one.grants.share(pageCount: 1, with: xen.two.domain, writable: true).bytes }
      _ = bytes.copied()
    }
  }

  @Test func grantIsForOneDomain() throws {
    let pages = try xen.one.grants.share(pageCount: 1, with: xen.two.domain, writable: true)
    _ = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: true)
    #expect(throws: GrantError.refused(pages.references[0], of: xen.one.domain, .generalError)) {
      _ = try xen.control.grants.map(pages.references, of: xen.one.domain, writable: false)
    }
    #expect(copyStatus(.fromGrant, by: xen.two, pages) == .okay)
    #expect(copyStatus(.fromGrant, by: xen.control, pages) == .generalError)
  }

  @Test func readOnlyGrantIsReadByMapAndByCopyOnly() throws {
    let pages = try xen.one.grants.share(pageCount: 1, with: xen.two.domain, writable: false)
    _ = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: false)
    #expect(throws: GrantError.refused(pages.references[0], of: xen.one.domain, .generalError)) {
      _ = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: true)
    }
    #expect(copyStatus(.fromGrant, by: xen.two, pages) == .okay)
    #expect(copyStatus(.toGrant, by: xen.two, pages) == .generalError)
  }

  @Test func pagesInUseAreCountedUntilTheirMapsEnd() throws {
    let pages = try xen.one.grants.share(pageCount: 3, with: xen.two.domain, writable: true)
    do {
      let mapped = try xen.two.grants.map(
        [pages.references[2], pages.references[0]], of: xen.one.domain, writable: true)
      #expect(mapped.byteCount == 2 * xenPageSize)
      #expect(xen.loopback.grantCounts.mappedPages == 2)
    }
    #expect(xen.loopback.grantCounts.mappedPages == 0 && xen.loopback.grantCounts.mapTotal == 2)
  }

  @Test func pagesStillInUseWhenTheirOwnerEndsThemAreQuarantined() throws {
    var references: [GrantReference] = []
    let mapped: SharedRegion
    do {
      let pages = try xen.one.grants.share(pageCount: 3, with: xen.two.domain, writable: true)
      references = pages.references
      mapped = try xen.two.grants.map([references[1]], of: xen.one.domain, writable: true)
    }
    #expect(xen.loopback.grantCounts.quarantinedPages == 1 && xen.loopback.grantCounts.sharedPages == 0)
    #expect(mapped.bytes.copied().allSatisfy { $0 == 0 })
    #expect(throws: GrantError.self) { _ = try xen.two.grants.map(references, of: xen.one.domain, writable: true) }
    let next = try xen.one.grants.share(pageCount: 3, with: xen.two.domain, writable: true)
    #expect(Set(next.references).isDisjoint(with: references))
  }

  @Test func domainSharesNoMorePagesThanItsLimit() throws {
    #expect(xen.one.sharedPageLimit == 1024)
    let most = try xen.one.grants.share(pageCount: 1000, with: xen.two.domain, writable: true)
    let before = xen.loopback.grantCounts
    let error = try #require(throws: GrantError.self) {
      _ = try xen.one.grants.share(pageCount: 25, with: xen.two.domain, writable: true)
    }
    guard case .exhausted(pageCount: 25, let advice) = error else { throw error }
    #expect(advice.contains("/sys/module/xen_gntalloc/parameters/limit"))
    #expect(xen.loopback.grantCounts == before, "a share that fails leaves something")
    let rest = try xen.one.grants.share(pageCount: 24, with: xen.two.domain, writable: true)
    // The limit is the domain's, not the process's, and nobody else's.
    let sibling = xen.loopback.addProcess(in: xen.one.domain)
    #expect(throws: GrantError.self) {
      _ = try sibling.grants.share(pageCount: 1, with: xen.two.domain, writable: true)
    }
    _ = try xen.two.grants.share(pageCount: 1024, with: xen.one.domain, writable: true)
    #expect(most.references.count + rest.references.count == 1024)
  }

  @Test func pagesThatAreSharedNoLongerDoNotCountAgainstTheLimit() throws {
    xen.one.sharedPageLimit = 2
    for _ in 1...3 { _ = try xen.one.grants.share(pageCount: 2, with: xen.two.domain, writable: true) }
    xen.one.sharedPageLimit = 3
    _ = try xen.one.grants.share(pageCount: 3, with: xen.two.domain, writable: true)
  }

  @Test func mapsFailAsOftenAsTheyAreToldTo() throws {
    let pages = try xen.one.grants.share(pageCount: 4, with: xen.two.domain, writable: true)
    xen.loopback.grantFaults.failedMap = .next(3)
    for _ in 1...3 {
      let error = try #require(throws: GrantError.self) {
        _ = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: true)
      }
      guard case .refused(let reference, xen.one.domain, .generalError) = error else { throw error }
      #expect(pages.references.contains(reference))
    }
    #expect(xen.loopback.grantCounts.mapTotal == 0)
    _ = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: true)
  }

  @Test func copySegmentsFailAsOftenAsTheyAreToldTo() throws {
    let pages = try xen.one.grants.share(pageCount: 1, with: xen.two.domain, writable: true)
    let own = PrivatePages(pageCount: 1)
    let ones = [UInt8](repeating: 1, count: 16)
    own.bytes.slice(from: 0, count: 16).copy(from: ones.span)
    var copies = (0..<4).map { number in
      GrantCopy(
        .toGrant, local: own.bytes.slice(from: 0, count: 16), reference: pages.references[0], of: xen.one.domain,
        offset: UInt16(16 * number))
    }
    xen.loopback.grantFaults.failedCopy = .next(2)
    var span = copies.mutableSpan
    xen.two.grants.copy(&span)
    #expect(copies.map(\.status) == [.generalError, .generalError, .okay, .okay])
    let there = pages.bytes.copied()
    #expect(there[..<32].allSatisfy { $0 == 0 } && there[32..<64].allSatisfy { $0 == 1 })
  }

  @Test func shareFailsAsAtTheLimit() throws {
    xen.loopback.grantFaults.failedShare = .next(1)
    #expect(throws: GrantError.gntallocLimit(pageCount: 1)) {
      _ = try xen.one.grants.share(pageCount: 1, with: xen.two.domain, writable: true)
    }
    #expect(xen.loopback.grantCounts.sharedPages == 0)
    _ = try xen.one.grants.share(pageCount: 1, with: xen.two.domain, writable: true)
  }

  /// Which of a hundred maps fail, when one in three does.
  private func failures(_ seed: Seed) throws -> [Bool] {
    let xen = Domains(seed: seed.value)
    let pages = try xen.one.grants.share(pageCount: 1, with: xen.two.domain, writable: true)
    xen.loopback.grantFaults.failedMap = .oneIn(3)
    return (0..<100).map { _ in (try? xen.two.grants.map(pages.references, of: xen.one.domain, writable: true)) == nil }
  }

  @Test(arguments: seeds(1...4, of: Self.self)) func failuresAtRandomRepeatWithTheirSeed(seed: Seed) throws {
    let failures = try failures(seed)
    #expect((10...60).contains(failures.count { $0 }))
    #expect(try self.failures(seed) == failures)
    #expect(try self.failures(Seed(seed.value &+ 1000)) != failures)
  }
}
