#if canImport(CXen)
  import CXen
  import Glibc
  import XenPlatform

  /// This domain's grants, through /dev/xen/gntdev and /dev/xen/gntalloc.
  final class NativeGrantTable: GrantTable {
    private let mapper: GrantMapper
    private let sharer = GrantSharer()

    init() throws(NativePlatformError) { mapper = try GrantMapper() }

    func share(pageCount: Int, with domain: DomainID, writable: Bool) throws(GrantError) -> GrantedPages {
      try sharer.share(pageCount: pageCount, with: domain, writable: writable)
    }

    func map(_ references: [GrantReference], of domain: DomainID, writable: Bool) throws(GrantError) -> SharedRegion {
      try mapper.map(references, of: domain, writable: writable)
    }

    func copy(_ copies: inout MutableSpan<GrantCopy>) { mapper.copy(&copies) }
  }
#endif
