import XenPlatform

/// One process's view of the ``GrantSpace``.
final class LoopbackGrantTable: GrantTable {
  private let process: LoopbackProcess
  private let loopback: Loopback
  private let regionOwner: RegionOwner

  init(_ process: LoopbackProcess, in loopback: Loopback) {
    self.process = process
    self.loopback = loopback
    regionOwner = RegionOwner(loopback: loopback)
  }

  func share(pageCount: Int, with grantee: DomainID, writable: Bool) throws(GrantError) -> GrantedPages {
    precondition(pageCount > 0, "at least one page")
    let shared = try loopback.grants.withLock { (space) throws(GrantError) in
      try space.share(pageCount: pageCount, by: process, with: grantee, writable: writable)
    }
    return GrantedPages(region: region(shared.memory), references: shared.references)
  }

  func map(_ references: [GrantReference], of owner: DomainID, writable: Bool) throws(GrantError) -> SharedRegion {
    let memory = try loopback.grants.withLock { (space) throws(GrantError) in
      try space.map(references, of: owner, by: process, writable: writable)
    }
    return region(memory)
  }

  private func region(_ memory: PageMapping) -> SharedRegion {
    // Safe: the memory stays mapped until endRegion.
    unsafe SharedRegion(
      baseAddress: memory.baseAddress, byteCount: memory.pageCount * xenPageSize, owner: regionOwner)
  }

  func copy(_ copies: inout MutableSpan<GrantCopy>) {
    let isDone = loopback.grants.withReadLock { space in
      guard !process.isKilled, space.copiesSideBySide else { return false }
      space.copy(&copies, by: process.domain)
      return true
    }
    if !isDone { copyAlone(&copies) }
  }

  /// With the space for itself, since a fault may strike; or not at all.
  private func copyAlone(_ copies: inout MutableSpan<GrantCopy>) {
    loopback.grants.withLock { space in
      if process.isKilled {
        for index in copies.indices { copies[index].status = .generalError }
      } else {
        space.copyWithFaults(&copies, by: process.domain)
      }
    }
  }

  private final class RegionOwner: SharedRegionOwner {
    private let loopback: Loopback

    init(loopback: Loopback) { self.loopback = loopback }

    func endRegion(at baseAddress: UnsafeMutableRawPointer, byteCount: Int) {
      let address = UInt(bitPattern: baseAddress)
      loopback.grants.withLock { $0.endRegion(at: address) }
    }
  }
}
