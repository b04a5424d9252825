import XenPlatform

/// Grant copies of whole pages from a guest, `batch` a call. What it gives copies a number of pages, and gives how many were.
func grantCopy(batch: Int) throws -> (Int) throws -> Int {
  let domains = try Domains()
  let grants = domains.driverDomain.grants
  let shared = Held(try domains.guest.grants.share(pageCount: batch, with: domains.driverDomain.domain, writable: true))
  let local = PrivatePages(pageCount: batch)
  var copies = (0..<batch).map { page in
    GrantCopy(
      .fromGrant, local: local.bytes.slice(from: page * xenPageSize, count: xenPageSize),
      reference: shared.references[page], of: domains.guest.domain, offset: 0)
  }
  return { count in
    var done = 0
    for _ in 0..<count / batch {
      var span = copies.mutableSpan
      grants.copy(&span)
      for index in copies.indices where copies[index].status == .okay { done += 1 }
    }
    // The copies have no more than its address.
    withExtendedLifetime((domains, shared, local)) {}
    return done
  }
}

/// Maps `batch` pages of a guest's, reads every one into memory of our own, and unmaps them. What it gives does so with a
/// number of pages, and gives how many were.
func grantMap(batch: Int) throws -> (Int) throws -> Int {
  let domains = try Domains()
  let grants = domains.driverDomain.grants
  let shared = Held(try domains.guest.grants.share(pageCount: batch, with: domains.driverDomain.domain, writable: true))
  let local = PrivatePages(pageCount: batch)
  return { count in
    var done = 0
    for _ in 0..<count / batch {
      let region = try grants.map(shared.references, of: domains.guest.domain, writable: false)
      local.bytes.copy(from: region.bytes)
      done += batch
    }
    withExtendedLifetime((domains, shared, local)) {}
    return done
  }
}

/// Pages that stay shared as long as this.
private final class Held {
  let references: [GrantReference]
  private let pages: GrantedPages

  init(_ pages: consuming GrantedPages) {
    references = pages.references
    self.pages = pages
  }
}
