"""What makes a planet's atmosphere opaque, as TauREx contributions.

`LineAbsorption` is the molecules' absorption by correlated k. The absorbers of an isothermal, well-mixed atmosphere
that do not depend on pressure have one cross-section in every layer, so `UniformContribution` looks it up once
instead of once per layer (same numbers as TauREx's own classes, quicker). `PartialClouds` is a cloud deck whose top
may lie inside a layer.
"""

import numpy as np
from taurex.contributions import Contribution, SimpleCloudsContribution
from taurex.util.scattering import rayleigh_sigma_from_name

from simulation.cia import PAIRS, KnotCIA
from simulation.molecules import MOLECULES


class UniformContribution(Contribution):
    """Opacity source with one cross-section for all layers: isothermal, well mixed, no dependence on pressure."""

    density_power = 1  # absorbers per volume go with density to this power

    def cross_section(self, model, wngrid):
        """Cross-section per molecule of air [m2] (CIA: m5) on `wngrid` [cm-1], shape (n_wavenumbers,)."""
        raise NotImplementedError

    def prepare_each(self, model, wngrid):
        """Yield the cross-section in all layers, (n_layers, n_wavenumbers); TauREx's abstract method."""
        yield self.name, np.broadcast_to(self.cross_section(model, wngrid), (model.nLayers, len(wngrid)))

    def prepare(self, model, wngrid):
        """Look up the cross-section once per spectrum."""
        self._ngrid, self._nlayers = len(wngrid), model.nLayers
        self._row = self.cross_section(model, wngrid)
        self.sigma_xsec = np.broadcast_to(self._row, (self._nlayers, self._ngrid))

    def contribute(self, model, start_layer, end_layer, density_offset, layer, density, tau, path_length=None):
        """Add cross-section times column along the ray through `layer` to its optical depth."""
        inside = density[start_layer + density_offset : end_layer + density_offset]
        column = path_length[start_layer:end_layer] @ inside**self.density_power
        tau[layer] += column * self._row


class LineAbsorption(Contribution):
    """Absorption by the molecules, lines and all: correlated k with band transmissions that multiply.

    A ray through several layers meets the same wavelengths in the same order of strength (correlated k), so the
    optical depth of each ordinate adds up along it. Lines of different molecules fall where they may: within a part
    of a cell the transmissions of the molecules multiply (random overlap).

    Parameters
    ----------
    opacities : simulation.opacities.Opacities
    parts : ndarray of int
        Parts of the cells that make the wavenumber grid, from the blue to the red.
    """

    def __init__(self, opacities, parts):
        super().__init__("Absorption")
        self._distributions, self._opacities, self._parts = opacities.distributions, opacities, parts
        cells, first, counts = np.unique(opacities.cell[parts], return_index=True, return_counts=True)
        self._cells, self._slices = cells, [slice(i, i + n) for i, n in zip(first, counts, strict=True)]
        self._pressure = self._surfaces = None

    def prepare_each(self, model, wngrid):
        """TauREx's abstract method: nothing, a layer by itself has no cross-section here."""
        return iter(())

    def prepare(self, model, wngrid):
        """Look up cross-sections and shares once per spectrum."""
        temperature = model.temperatureProfile[0]
        mix = {name: model.chemistry.get_gas_mix_profile(name)[0] for name in MOLECULES}
        present = [name for name in MOLECULES if mix[name] > 0]
        k = [self._at_levels(name, temperature, model.pressureProfile) * (mix[name] * 1e-4) for name in present]
        self._k = np.stack(k, axis=1) if k else None  # (n_layers, n_molecules, n_cells, n_g) m2 per molecule of air
        shares = [self._opacities.shares(name, temperature)[self._parts] for name in present]
        self._shares = np.array(shares, float).transpose(0, 2, 1) if k else None  # (n_molecules, n_g, n_parts)
        self._optical_depth = None

    def _at_levels(self, name, temperature, pressure):
        """Cross-sections [cm2] of the cells in all layers, (n_layers, n_cells, n_g)."""
        return self._distributions.cross_sections(name, temperature, pressure)[:, self._cells]

    def contribute(self, model, start_layer, end_layer, density_offset, layer, density, tau, path_length=None):
        """Add the optical depth along the ray through `layer`; that of all rays is computed with the first."""
        if self._k is None:
            return
        if self._optical_depth is None:
            self._optical_depth = -np.log(np.maximum(self._transmission(model.path_length, density), 1e-300))
        tau[layer] += self._optical_depth[layer]

    def _transmission(self, path_length, density):
        """Part of the light that the molecules let through, (n_layers, n_wavenumbers), wavenumber ascending."""
        column = np.zeros((len(density), len(density)))  # of the ray through a layer in the layers above
        for layer, path in enumerate(path_length):
            column[layer, layer:] = path * density[layer:]
        light = np.exp(-(column @ self._k.reshape(len(density), -1))).reshape(self._k.shape)
        light = light.transpose(2, 1, 0, 3)  # (n_cells, n_molecules, n_layers, n_g)
        result = np.empty((len(density), len(self._parts)))
        for cell, parts in zip(light, self._slices, strict=True):
            result[:, parts] = (cell @ self._shares[:, :, parts]).prod(axis=0)
        return result[:, ::-1]


class MolecularAbsorption(UniformContribution):
    """Absorption by the molecules, from tables that do not depend on pressure."""

    def __init__(self, tables):
        super().__init__("Absorption")
        self._tables = tables  # {molecule: TauREx opacity}

    def cross_section(self, model, wngrid):
        """Sum over molecules of mixing ratio times cross-section [m2]."""
        temperature, pressure = model.temperatureProfile[0], model.pressureProfile[0]
        total = np.zeros(len(wngrid))
        for name, table in self._tables.items():
            mixing_ratio = model.chemistry.get_gas_mix_profile(name)[0]
            if mixing_ratio > 0:
                total += mixing_ratio * table.opacity(temperature, pressure, wngrid)
        return total


class UniformRayleigh(UniformContribution):
    """TauREx's Rayleigh scattering, its cross-sections computed once per wavenumber grid."""

    def __init__(self):
        super().__init__("Rayleigh")
        self._grid, self._sigma = None, {}

    def cross_section(self, model, wngrid):
        """Sum over gases of mixing ratio times Rayleigh cross-section [m2]."""
        if self._grid is not wngrid:
            self._grid = wngrid
            gases = (*model.chemistry.activeGases, *model.chemistry.inactiveGases)
            self._sigma = {gas: rayleigh_sigma_from_name(gas, wngrid) for gas in gases}
        return sum(model.chemistry.get_gas_mix_profile(gas)[0] * sigma for gas, sigma in self._sigma.items())


class UniformCIA(UniformContribution):
    """Collision-induced absorption of H2-H2 and H2-He."""

    density_power = 2

    def __init__(self):
        super().__init__("CIA")
        self._pairs = [KnotCIA(pair) for pair in PAIRS]

    def cross_section(self, model, wngrid):
        """Sum over pairs of both mixing ratios times the absorption coefficient [m5]."""
        temperature, mix = model.temperatureProfile[0], model.chemistry.get_gas_mix_profile
        return sum(mix(cia.pairOne)[0] * mix(cia.pairTwo)[0] * cia.cia(temperature, wngrid) for cia in self._pairs)


class PartialClouds(SimpleCloudsContribution):
    """Grey cloud deck whose top may lie inside a layer.

    TauREx's SimpleClouds makes whole layers opaque, so the spectrum is a staircase in cloud-top pressure. Here the
    layer that holds the top passes a fraction 1 - f of the light, f being the part of the layer (in log pressure)
    below the top. With the top on a layer's boundary the two agree.
    """

    def prepare_each(self, model, wngrid):
        """Yield the optical depth of the cloud in each layer, (n_layers, n_wavenumbers)."""
        log_level = np.log(model.pressure.pressure_profile_levels)  # (n_layers + 1,), bottom first
        covered = (log_level[:-1] - np.log(self._cloud_pressure)) / (log_level[:-1] - log_level[1:])
        with np.errstate(divide="ignore"):
            optical_depth = -np.log1p(-np.clip(covered, 0.0, 1.0))  # inf where the layer is covered
        yield "Clouds", np.repeat(optical_depth[:, None], len(wngrid), axis=1)
